"""The Confluent schema registry, if one is configured: it stores an event's schema under an id.

The subject of a topic's values is ``<topic>-value``, as Confluent's own serializers name it. The client library is
imported when a registry is used, since most setups have none (extra ``registry``).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from vacancy.schemas.errors import ConfigError, VacancyError
from vacancy.schemas.events import Event, newest

_TIMEOUT_S = 5
_NO_URL = "kafka.schema_registry_url: not a URL such as http://registry:8081"


class Registry:
    """A schema registry.

    Args:
        url: its base URL, including user and password if it needs them.

    Raises:
        ConfigError: the URL is invalid, or the client library is not installed.
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

    def register(self, event: Event, topic: str) -> int:
        """Registers an event's newest schema for a topic's values and returns its id, which is the same every time.

        Raises:
            VacancyError: the registry does not answer or refuses the schema.
        """
        from confluent_kafka.schema_registry import Schema

        try:
            schema_id: int = self._client.register_schema(f"{topic}-value", Schema(newest(event).text, "AVRO"))
        except Exception as error:  # noqa: BLE001  # its own errors, or those of its HTTP library
            raise self._failed(error) from None
        return schema_id

    def _failed(self, error: Exception) -> VacancyError:
        return VacancyError(f"the schema registry at {self._where} fails: {error}; see kafka.schema_registry_url")


def registry_address(url: str) -> tuple[str, str | None]:
    """Splits a registry's URL into the base URL and ``user:password``; the latter is None if the URL has no user.

    Raises:
        ConfigError: the URL is invalid.
    """
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https") or not place:
        raise ConfigError(_NO_URL)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}", credentials
