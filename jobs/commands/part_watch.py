"""How each part of the system is, in one line above a live view, looked at beside it: the view must not wait."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.text import Text

from vacancy.jobs.commands.status import Part, look
from vacancy.jobs.settings import Settings
from vacancy.jobs.terminal import safe

EVERY_SECONDS = 5.0
_SHOWN = ("broker", "database", "job", "sources", "claims", "fleet page")


class PartWatch:
    """A context manager; inside it :meth:`line` says how each part was when it was last looked at."""

    def __init__(self, settings: Settings) -> None:
        """Watches the parts that these settings name."""
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="part watch", daemon=True)
        self._parts: Mapping[str, Part] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()  # the thread is a daemon: nobody waits for a part that does not answer

    def line(self) -> Text | None:
        """The parts, those that are not well first; None before the first look."""
        return line(self._parts) if self._parts else None

    def _run(self) -> None:
        while True:
            self._parts = look(self._settings, _SHOWN)
            if self._stop.wait(EVERY_SECONDS):
                return


def line(parts: Mapping[str, Part]) -> Text:
    """The parts as ``vacancy status`` knows them, in one line of 80 columns if all is well."""
    ill = [name for name, part in parts.items() if part.well is False]
    words = [Text(f"{name} not well", "bold red") for name in ill]
    words += [_word(name, part) for name, part in parts.items() if name not in ill]
    line = Text(", ").join(words)
    if ill:
        line = Text.assemble(line, "; `vacancy status` says more")
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _word(name: str, part: Part) -> Text:
    match name:
        case "claims":
            number = part.text.split()[0]
            return Text(safe(f"{number} claim{'' if number == '1' else 's'}"))
        case "fleet page":
            return Text(safe(part.text))
    return Text(f"{name} {'ok' if part.well else 'unknown'}", "green" if part.well else "")
