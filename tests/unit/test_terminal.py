"""Text from others cannot control a terminal, and programs still get all of it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.harness.terminal import Terminal
from vacancy.jobs.logs import configure, fail
from vacancy.jobs.rendering import PlainTable, one_line
from vacancy.jobs.terminal import dumps, safe, say, say_json

STEERING = {
    "clears the screen": "\x1b[2J",
    "C1 control sequence": "\x9b2J",
    "window title": "\x1b]0;title\x07",
    "C1 operating system command": "\x9d0;title\x9c",
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "line feed": "\n",
    "carriage return": "\r",
    "backspace": "\x08",
    "line separator": "\u2028",
    "zero width": "\u200b",
    "tag": "\U000e0041",
    "lone surrogate": "\ud800",
    "blank letter": "\u3164",
    "variation selector": "\ufe0f",
}
CONSOLES = """
from vacancy.jobs.rendering import line_console, table_console
print(*(console.is_terminal for console in (line_console(), line_console(stderr=True), table_console())))
"""
BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0" + "".join(
    map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)
"""Printable to Python, and nothing to see."""
texts = st.one_of(st.text(), st.text(st.sampled_from("".join(STEERING.values()) + BLANKS[:12] + "a\\[red]")))


@given(texts)
def test_what_is_printed_is_printable_and_one_line(text: str) -> None:
    assert all(character.isprintable() for character in safe(text))
    assert not set(BLANKS) & set(safe(text))


@given(texts)
def test_printable_text_stays_as_it_is(text: str) -> None:
    printable = "".join(character for character in text if character.isprintable() and character not in BLANKS)
    assert safe(printable) == printable


@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_json_is_printable_and_means_the_same(value: object) -> None:
    line = dumps(value)
    assert all(character.isprintable() for character in line)
    assert json.loads(line) == value


@pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
def test_each_way_out_is_safe(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    root, ours = logging.getLogger(), logging.getLogger("vacancy")
    before = root.handlers[:], root.level, ours.level
    try:
        say(f"host {text}")
        say_json({"host": text})
        configure("plain")
        logging.getLogger("vacancy.agent").warning("host %s", text)
        fail(f"host {text}")
        configure("json")
        logging.getLogger("vacancy.agent").warning("host %s", text)
        fail(f"host {text}")
    finally:
        root.handlers[:], root.level, ours.level = before
    output = capsys.readouterr()
    lines = [*output.out.removesuffix("\n").split("\n"), *output.err.removesuffix("\n").split("\n")]
    assert len(lines) == 6
    assert all(character.isprintable() for line in lines for character in line)
    assert json.loads(lines[1])["host"] == text
    assert [json.loads(line)["message"] for line in lines[4:]] == [f"host {text}"] * 2


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_terminal_that_lacks_characters_shows_their_escapes(encoding: str) -> None:
    name = "Zürich …東京 \U0001f600"
    program = (
        "import sys; from vacancy.jobs.terminal import say, say_json, write_any_text; write_any_text();"
        f" say({name!r}); say_json({name!r})"
    )
    command = [sys.executable, "-c", program]
    output = subprocess.check_output(command, env=os.environ | {"PYTHONIOENCODING": encoding}).decode(encoding)
    text, line = output.splitlines()
    assert "\\u6771\\u4eac \\ud83d\\ude00" in text
    assert "Zürich" in text
    assert json.loads(line) == name


@pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
def test_cells_of_a_table_are_text(text: str) -> None:
    console = Console(file=StringIO(), width=80, force_terminal=False)
    table = PlainTable()
    table.add_column("host")
    table.add_column("state")
    table.add_row(f"[red]{text}x", one_line(f"{text}y"))
    console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
    assert f"[red]{safe(text)}x" in shown
    assert all(character.isprintable() for line in shown.split("\n") for character in line)


@pytest.mark.parametrize(("term", "live"), [("xterm-256color", True), ("dumb", False)])
def test_a_terminal_that_cannot_redraw_gets_lines(tmp_path: Path, term: str, live: bool) -> None:
    with Terminal(
        [sys.executable, "-c", CONSOLES], tmp_path, columns=80, lines=24, environment={"TERM": term}
    ) as shown:
        shown.wait_for(f"^{live} {live} {live}$")
        assert shown.wait() == 0
