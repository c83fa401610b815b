"""The Confluent schema registry, where one is configured: an event's schema under an id, and the way back.

The subject of a topic's values is ``<topic>-value``, as Confluent's own serializers name it. The client library is
imported when a registry is used, since most setups have none (extra ``registry``).
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import unquote, urlsplit

from vacancy.schemas.errors import ConfigError, VacancyError
from vacancy.schemas.events import Event, newest

_TIMEOUT_S = 5
_UNKNOWN_FOR_S = 30.0
_MAX_UNKNOWN = 10_000
_NO_URL = "kafka.schema_registry_url: not a URL such as http://registry:8081"


class Registry:
    """A schema registry.

    Args:
        url: its base URL, with user and password in it if it asks for them.

    Raises:
        ConfigError: the URL is none, or the client library is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"kafka.schema_registry_url needs {error.name}, which is not installed; pip install 'vacancy[registry]'"
            ) from None
        parts = urlsplit(url)
        self._where = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)  # without the password
        try:
            self._client: Any = SchemaRegistryClient.new_client({"url": url, "timeout": _TIMEOUT_S, "max.retries": 1})
        except ValueError:
            raise ConfigError(_NO_URL) from None
        self._unknown_until: dict[int, float] = {}

    def register(self, event: Event, topic: str) -> int:
        """Registers an event's newest schema for a topic's values and returns its id; the same one each time.

        Raises:
            VacancyError: the registry does not answer or refuses the schema.
        """
        from confluent_kafka.schema_registry import Schema

        try:
            schema_id: int = self._client.register_schema(f"{topic}-value", Schema(newest(event).text, "AVRO"))
        except Exception as error:  # noqa: BLE001  # its own errors, or those of whichever HTTP library it uses
            raise self._failed(error) from None
        return schema_id

    def schema(self, schema_id: int) -> str:
        """The text of a schema.

        An id that the registry did not know is not asked for again for 30 s, so that a flood of bad records with the
        same id costs it nothing.

        Raises:
            LookupError: the registry does not know the id.
            VacancyError: the registry does not answer; whether the id is known cannot be said.
        """
        now = time.monotonic()
        if self._unknown_until.get(schema_id, now) > now:
            raise LookupError(f"the schema registry has no schema {schema_id}")
        try:
            return str(self._client.get_schema(schema_id).schema_str)
        except Exception as error:  # noqa: BLE001  # as above
            if getattr(error, "http_status_code", None) != 404:
                raise self._failed(error) from None
        if len(self._unknown_until) >= _MAX_UNKNOWN:
            self._unknown_until.clear()
        self._unknown_until[schema_id] = now + _UNKNOWN_FOR_S
        raise LookupError(f"the schema registry has no schema {schema_id}")

    def _failed(self, error: Exception) -> VacancyError:
        return VacancyError(f"the schema registry at {self._where} fails: {error}; see kafka.schema_registry_url")


def registry_address(url: str) -> tuple[str, str | None]:
    """A registry's base URL without user and password, and these as user:password; None if it has none.

    Raises:
        ConfigError: the URL is none.
    """
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https") or not place:
        raise ConfigError(_NO_URL)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}", credentials
