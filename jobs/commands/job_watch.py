"""Whether the job runs, looked at each second beside a live view, which must not wait for it."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from vacancy.jobs.flink.address import local_url, named_url
from vacancy.jobs.flink.rest import FlinkRest
from vacancy.jobs.settings import Settings
from vacancy.schemas.errors import VacancyError

EVERY_SECONDS = 1.0


class JobWatch:
    """A context manager; inside it :attr:`trouble` says what is wrong with the job, or None.

    Where the settings say nothing of a cluster, the job is not looked at.
    """

    def __init__(self, settings: Settings, *, local: bool = False) -> None:
        """Watches the job of these settings; ``local``: that of the local stack, though they name a cluster."""
        self._url = (None if local else named_url(settings)) or local_url(settings)
        self._name = None if self._url == local_url(settings) else settings.job.name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job watch", daemon=True)
        self.trouble: str | None = None

    def __enter__(self) -> Self:
        if self._url is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()  # the thread is a daemon: nobody waits for a cluster that does not answer

    def look(self) -> str | None:
        """What is wrong with the job now."""
        assert self._url is not None  # noqa: S101  # only the thread calls it, and tests
        try:
            jobs = [job for job in FlinkRest(self._url).jobs() if self._name in (None, job.name)]
        except VacancyError as error:
            return f"the job does not run: {error}"
        state = next((job.state for job in jobs if not job.ended), jobs[0].state if jobs else "not there")
        return None if state == "RUNNING" else f"the job is {state.lower()}, so no row is written; see `vacancy status`"

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.trouble = self.look()
