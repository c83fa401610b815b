"""Log lines on stderr: plain lines for people, or one JSON object per line for log collectors.

A JSON line has `time` (UTC), `level`, `logger` and `message`, then fields that identify the process, such as `host` and
`job`, and `exception` if there is one.
"""

from __future__ import annotations

import logging
import socket
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import click

from vacancy.jobs.terminal import dumps, safe

Format = Literal["plain", "json"]
_PLAIN = "%(asctime)s %(levelname)s %(message)s"


class JsonFormatter(logging.Formatter):
    """A record as one JSON object in one line, with the same fields in each."""

    def __init__(self, **fields: str) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return dumps(line)


class PlainFormatter(logging.Formatter):
    """A record as one line, followed by the lines of its traceback, if it has one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # its name is logging's
        """The line."""
        return safe(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # as above
        """The traceback, one output line per line."""
        return "\n".join(map(safe, super().formatException(ei).split("\n")))


log_format_option = click.option(
    "--log-format",
    type=click.Choice(["plain", "json"]),
    help="Format of the log lines, as log.format.  [default: plain]",
)
"""Adds ``--log-format``, which overrides the setting `log.format`."""


def configure(log_format: Format, **fields: str) -> None:
    """Sends this process's log lines to stderr.

    Args:
        log_format: plain or json.
        fields: additional fields of each JSON line; `host` defaults to this machine's name.
    """
    handler = logging.StreamHandler()
    if log_format == "json":
        handler.setFormatter(JsonFormatter(**{"host": socket.gethostname()} | fields))
    else:
        handler.setFormatter(PlainFormatter(_PLAIN))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("vacancy").setLevel(logging.INFO)  # from libraries only warnings and errors


def fail(message: str) -> None:
    """Prints the error that a command ends with as one line, as JSON if the log is JSON."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.root.handlers):
        logging.getLogger("vacancy").critical("%s", message)
    else:
        print(f"vacancy: {safe(message)}", file=sys.stderr)
