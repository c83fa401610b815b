"""Settings as TOML text, secrets included, for the file that the local stack writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w
from pydantic import SecretStr

from vacancy.jobs.settings import Settings


def dumps(settings: Settings) -> str:
    """The settings that differ from their defaults, and the brokers: who reads the file must see that it names them."""
    document = _plain(settings.model_dump(exclude_defaults=True))
    document["kafka"] = {"bootstrap_servers": settings.kafka.bootstrap_servers} | document.get("kafka", {})
    return tomli_w.dumps(document)


def _plain(value: Any) -> Any:
    """A value in TOML's types. Keys with the value None are left out, since TOML has no null."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            return [_plain(item) for item in value]
        case SecretStr():
            return value.get_secret_value()
        case Path():
            return str(value)
    return value
