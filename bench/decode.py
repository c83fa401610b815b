"""The cost of decoding alone: usage events per second through ``decode_usage`` on one core, with 0, 1 and 10 % bad.

One event of each of 10,000 hosts is decoded repeatedly, in a JVM without Flink; the first rounds warm Java up.

    python -m bench.decode
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench.backlog import Record, fleet_events
from bench.common import CONSOLE, save
from bench.poison import HOSTS, MIXES, bad_payload
from vacancy.jobs.flink.job_jars import flink_home, flink_jars, functions_jar, java_home, java_sources
from vacancy.schemas.events import Event, newest

ROUNDS = 8
WARM_UP = 3


def main() -> None:
    """Measures each mix; prints and writes bench/results/decode.json."""
    source = Path(__file__).parent / "java" / "vacancy" / "DecodeBench.java"
    good = list(fleet_events(HOSTS, 1))
    figures = []
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name:
        directory = Path(name)
        jar = functions_jar(dict(java_sources()) | {f"vacancy/{source.name}": source.read_bytes()}, directory)
        class_path = os.pathsep.join(map(str, [jar, *flink_jars(), flink_home() / "lib" / "*"]))
        schema, payloads = directory / "schema.avsc", directory / "payloads"
        schema.write_text(newest(Event.USAGE).text, encoding="utf-8")
        for mix in MIXES:
            payloads.write_bytes(_with_bad(good, mix.share))
            java: list[str | Path] = [java_home() / "bin" / "java", "-cp", class_path, "vacancy.DecodeBench"]
            done = subprocess.run([*java, schema, payloads, str(ROUNDS)], capture_output=True, text=True, check=True)
            per_s = [int(line) for line in done.stdout.split()][WARM_UP:]
            figures.append({"mix": mix.name, "per_s": round(statistics.median(per_s)), "per_s_of_rounds": per_s})
            CONSOLE.print(f"{mix.name:>10}: {statistics.median(per_s):>11,.0f} payloads/s")
    CONSOLE.print(
        save("decode", {"payload_bytes": round(statistics.mean(len(event.value) for event in good)), "mixes": figures})
    )


def _with_bad(good: list[Record], share: float) -> bytes:
    """A count, then each record's key and payload, each preceded by its length; bad payloads among the good ones."""
    chance = random.Random(0)  # noqa: S311  # no secret
    parts: list[bytes] = []
    bad = 0
    for event in good:
        parts += [event.key, event.value]
        if chance.random() < share:
            bad += 1
            parts += [event.key, bad_payload(chance, event.value, bad)]
    return b"".join([(len(parts) // 2).to_bytes(4, "big"), *(len(one).to_bytes(4, "big") + one for one in parts)])


if __name__ == "__main__":
    main()
