"""Formats tables and figures, with and without a terminal."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from vacancy.jobs.terminal import safe

FILE_WIDTH = 180
"""Width in columns without a terminal."""
UNKNOWN = "-"
"""Shown for an unknown figure."""


class PlainTable(Table):
    """A rule below its head, and nothing else drawn. Cells are text: neither markup nor escapes have an effect."""

    def __init__(self) -> None:
        super().__init__(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Adds a row, as :meth:`rich.table.Table.add_row` does."""
        super().add_row(*(Text(safe(cell)) if isinstance(cell, str) else cell for cell in cells), **options)


def table_console() -> Console:
    """A console for a table: as wide as the terminal, or wide enough for every column without one."""
    # Without a terminal Rich assumes 80 columns.
    return _console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else FILE_WIDTH)


def line_console(*, stderr: bool = False) -> Console:
    """A console for lines and a live view: without a terminal, long lines are not wrapped."""
    return _console(soft_wrap=not (sys.stderr if stderr else sys.stdout).isatty(), stderr=stderr)


def _console(**options: Any) -> Console:
    """A console; a terminal that cannot redraw (``TERM=dumb``) gets lines, as a file does, and no live view."""
    console = Console(highlight=False, **options)
    return Console(highlight=False, force_terminal=False, **options) if console.is_dumb_terminal else console


def percent(fraction: float | None) -> str:
    """A fraction as whole percent."""
    if fraction is None:
        return UNKNOWN
    return f"{fraction:.0%}" if abs(fraction) < 100 else f"{100 * fraction:.3g}%"


def counted(number: int, thing: str) -> str:
    """How many of a thing: ``1 host``, ``1,000 hosts``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def size(n_bytes: float | None) -> str:
    """Bytes in the unit that gives at most three digits before the point: ``12.3 MB``."""
    if n_bytes is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 999.5:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB" if abs(n_bytes) < 1e6 else f"{n_bytes:.3g} TB"


def duration(age: timedelta | None) -> str:
    """An age in the unit that fits it: ``0.8 s``, ``12 min``, ``3 h``, ``5 d``."""
    if age is None:
        return UNKNOWN
    seconds = age.total_seconds()
    for unit, unit_seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds:.1f} s"


def one_line(text: str, style: str = "") -> Text:
    """A cell that is truncated rather than wrapped; its text cannot control the terminal."""
    return Text(safe(text), style, no_wrap=True, overflow="ellipsis")
