"""A settings file with every setting as a comment: its description and its default."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import timedelta
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, SecretStr

from vacancy.jobs.settings import Settings
from vacancy.schemas.units import format_duration

_WIDTH = 110
PARTS: dict[str, tuple[str, ...]] = {
    "agent": ("kafka", "agent", "log"),
    "job": ("kafka", "job", "postgres", "log"),
    "scheduler": ("postgres", "scheduler"),
    "extender": ("postgres", "scheduler", "extender", "log"),
    "bridge": ("kafka", "bridge", "log"),
    "storage": ("kafka", "storage", "log"),
    "web": ("kafka", "postgres", "scheduler", "web"),
    "all": tuple(Settings.model_fields),
}
"""For each part the sections that it reads."""


def template(sections: Sequence[str]) -> str:
    """TOML in which every setting of these sections is a comment; without a line changed it is the defaults."""
    lines = ["# Settings of Vacancy; docs/settings.md describes them. Take the # away where you change one."]
    for name in sections:
        section = type(Settings.model_fields[name].default)
        lines += ["", *_comment(section.__doc__ or ""), f"[{name}]", *_keys(section, name)]
    return "\n".join(lines) + "\n"


def _keys(section: type[BaseModel], prefix: str) -> list[str]:
    lines: list[str] = []
    inner: list[str] = []
    for key, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            inner += [
                "",
                *_comment(type(default).__doc__ or ""),
                f"[{prefix}.{key}]",
                *_keys(type(default), f"{prefix}.{key}"),
            ]
            continue
        lines += _comment(field.description or "")
        # What depends on where the command runs is no default to write down.
        lines.append(f"# {key} = {'…  (see docs/settings.md)' if field.default_factory else _literal(default)}")
    return lines + inner


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH)]


def _literal(value: Any) -> str:
    """A default in TOML, which has no null."""
    match value:
        case None:
            return "…  (unset)"
        case SecretStr():
            value = value.get_secret_value()
        case PurePath():
            value = str(value)
        case timedelta():
            value = format_duration(value)
    # TOML has JSON's texts, numbers, lists and truth values, and `{}`.
    return json.dumps(value, ensure_ascii=False)
