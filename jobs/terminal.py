"""Text that others wrote (nodes, operators, servers), on its way to a terminal.

A terminal obeys escape sequences, C1 controls and bidirectional overrides in what it is sent. So every command and
every log line prints text through this module, which shows each character that is not printable as its escape:
``\\x1b``, ``\\u202e``. JSON keeps its meaning: a reader gets the original text back.
"""

from __future__ import annotations

import json
import re
from typing import Any

import click

_MAYBE_UNSAFE = re.compile(r"[^\x20-\x7e]")


def safe(text: str) -> str:
    """One line: the text with each character that is not printable, the line feed too, as its escape."""
    return _MAYBE_UNSAFE.sub(_escaped, text)


def dumps(value: Any) -> str:
    """JSON in one line, in which every character that is not printable is escaped."""
    return _MAYBE_UNSAFE.sub(_json_escaped, json.dumps(value, ensure_ascii=False))


def say(text: str, *, mark: str = "", err: bool = False) -> None:
    """Prints one line safely, after an optional prefix of this program that may be coloured."""
    click.echo(mark + safe(text), err=err)  # noqa: TID251  # the one place


def say_json(value: Any) -> None:
    """Prints a value as one line of JSON."""
    click.echo(dumps(value))  # noqa: TID251  # the one place


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _json_escaped(match: re.Match[str]) -> str:
    character = match.group()
    return character if character.isprintable() else json.dumps(character)[1:-1]
