"""Records of structured fuzzing: tests/flink/java/vacancy/DecoderFuzz.java makes and checks them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vacancy.jobs.flink.job_jars import flink_home, flink_jars, functions_jar, java_home, java_sources
from vacancy.schemas.events import Event, newest

_FUZZ = Path(__file__).parents[1] / "flink" / "java" / "vacancy" / "DecoderFuzz.java"


class FuzzRecord(NamedTuple):
    """A record for the topic of an event; its key is None where it has none."""

    event: Event
    key: bytes | None
    payload: bytes


def fuzz(directory: Path, seed: int, records: int, kept: Path | None = None) -> list[int]:
    """Puts records through both decoders: usage events taken and refused, inventory events taken and refused.

    Args:
        directory: for its files.
        seed: what they are drawn from.
        records: how many.
        kept: a file for all of them; None: they are not kept.
    """
    jar = functions_jar(dict(java_sources()) | {"vacancy/DecoderFuzz.java": _FUZZ.read_bytes()}, directory)
    schemas = []
    for event in (Event.USAGE, Event.INVENTORY):
        schemas.append(directory / f"{event.value}.avsc")
        schemas[-1].write_text(newest(event).text, encoding="utf-8")
    class_path = os.pathsep.join(map(str, [jar, *flink_jars(), flink_home() / "lib" / "*"]))
    command = [str(java_home() / "bin" / "java"), "-Xmx512m", "-cp", class_path, "vacancy.DecoderFuzz"]
    command += [str(seed), str(records), *map(str, schemas)]
    command += [] if kept is None else [str(kept), str(records)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(count) for count in re.findall(r"\d+", done.stdout)]


def read_records(kept: Path) -> Iterator[FuzzRecord]:
    """The records of a file."""
    with kept.open("rb") as file:
        while kind := file.read(1):
            key = file.read(int.from_bytes(file.read(4), "big"))
            payload = file.read(int.from_bytes(file.read(4), "big"))
            yield FuzzRecord(Event.INVENTORY if kind[0] else Event.USAGE, key or None, payload)
