"""The same job on Quix Streams, a stream processor in Python, in a separate environment."""

from __future__ import annotations

from pathlib import Path

from bench.placement import environment

LOCK = environment.ROOT / "requirements" / "peer.lock"
PROGRAM = Path(__file__).with_name("quix.py")
TABLE = "bench.peer"


def python() -> Path:
    """The interpreter of its environment, which is created if it is missing."""
    return environment.python(LOCK)
