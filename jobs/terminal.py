"""Text that others wrote (nodes, operators, servers), on its way to a terminal.

A terminal obeys escape sequences, C1 controls and bidirectional overrides in what it is sent. So every command and
every log line prints text through this module, which shows each character that is not printable as its escape:
``\\x1b``, ``\\u202e``. So are those that a terminal shows as nothing, since two names that look the same are one to
whoever reads them. JSON keeps its meaning: a reader gets the original text back.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
from typing import Any

import click

_MAYBE_UNSAFE = re.compile(r"[^\x20-\x7e]")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What Python calls printable, and a terminal shows as nothing."""


def safe(text: str) -> str:
    """One line: the text with each character that is not printable, the line feed too, as its escape."""
    return _MAYBE_UNSAFE.sub(_escaped, text)


def dumps(value: Any) -> str:
    """JSON in one line, in which every character that is not printable is escaped."""
    return _MAYBE_UNSAFE.sub(_json_escaped, json.dumps(value, ensure_ascii=False))


def write_any_text() -> None:
    """Has a terminal whose character set lacks some, as one with LANG=C.ISO-8859-1, show those as their escapes too."""
    codecs.register_error("vacancy", _unencodable)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="vacancy")


def say(text: str, *, mark: str = "", err: bool = False) -> None:
    """Prints one line safely, after an optional prefix of this program that may be coloured."""
    click.echo(mark + safe(text), err=err)  # noqa: TID251  # the one place


def say_json(value: Any) -> None:
    """Prints a value as one line of JSON."""
    click.echo(dumps(value))  # noqa: TID251  # the one place


def _is_seen(character: str) -> bool:
    return character.isprintable() and not _INVISIBLE.match(character)


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return character if _is_seen(character) else character.encode("unicode_escape").decode("ascii")


def _json_escaped(match: re.Match[str]) -> str:
    character = match.group()
    return character if _is_seen(character) else json.dumps(character)[1:-1]


def _unencodable(error: UnicodeError) -> tuple[str, int]:
    """As JSON escapes them, so that JSON stays what it is."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  # all that output asks for
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
