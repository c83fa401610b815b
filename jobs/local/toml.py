"""Settings as TOML text, secrets included; the standard library reads TOML, but does not write it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from vacancy.jobs.settings import Settings


def dumps(settings: Settings) -> str:
    """The settings that differ from their defaults."""
    return "\n".join(_table("", settings.model_dump(exclude_defaults=True))) + "\n"


def _table(name: str, table: Mapping[str, Any]) -> list[str]:
    """Lines of a table: its own keys, then its tables; None is a key that is left out."""
    lines = ["", f"[{name}]"] if name else []
    lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict | None)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _table(f"{name}.{key}" if name else key, value)
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = str(value)
    # JSON's strings, numbers, booleans and lists are TOML's, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
