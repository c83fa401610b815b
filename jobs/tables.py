"""How tables look on a terminal, and where there is none."""

from __future__ import annotations

import os
import sys

from rich import box
from rich.console import Console
from rich.table import Table

FILE_WIDTH = 160
"""Columns to fill where there is no terminal to ask."""


def plain_table() -> Table:
    """A table without columns yet: a rule below its head, and nothing else drawn."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def table_console() -> Console:
    """A console for a table: as wide as the terminal, or wide enough for all where there is none."""
    # Rich takes 80 columns where there is no terminal.
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else FILE_WIDTH, highlight=False)
