"""One part of bench.agent_cost, in a process that imports nothing else; prints its figures as JSON.

python -m bench.agent_parts agent 5 60 1
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROLES = ("agent", "agent with a tolerance", "bare producer", "idle")


def main(role: str, warm_up_s: float, seconds: float, interval_s: float) -> None:
    """Runs in the child: does its part while a thread takes the measurements and ends it."""
    parts: dict[str, Callable[[threading.Event], None]] = {
        "agent": lambda _: _agent(interval_s),
        "agent with a tolerance": lambda _: _agent(interval_s),  # the environment has it
        "bare producer": lambda end: _bare_producer(interval_s, end),
        "idle": lambda end: _idle(end),
    }
    end = threading.Event()

    def measure() -> None:
        time.sleep(warm_up_s)
        before, began_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        time.sleep(seconds)
        after, ended_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        switches = after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw
        figures = {
            "cpu_percent_of_one_core": round(100 * cpu_s / (ended_s - began_s), 3),
            "context_switches_per_s": round(switches / (ended_s - began_s), 1),
            "rss_mib": round(_resident_bytes() / 2**20, 1),
            "start_and_warm_up_cpu_s": round(before.ru_utime + before.ru_stime, 2),
        }
        print(json.dumps(figures), flush=True)
        end.set()
        if role.startswith("agent"):
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=measure)
    thread.start()
    parts[role](end)
    thread.join()


def _agent(interval_s: float) -> None:
    from vacancy.jobs.commands.cli import main as cli

    cli(["agent", "--interval", f"{round(1000 * interval_s)}ms"])


def _idle(end: threading.Event) -> None:
    from vacancy.jobs.commands import agent, cli

    del agent, cli  # imported to measure their cost
    end.wait()


def _bare_producer(interval_s: float, end: threading.Event) -> None:
    """The smallest comparable program: sends some of psutil's figures as JSON with the same client."""
    import psutil
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": os.environ["VACANCY_KAFKA__BOOTSTRAP_SERVERS"],
            "linger.ms": 5,
            "compression.type": "lz4",
        }
    )
    while not end.wait(interval_s):
        cpu, memory = psutil.cpu_times(), psutil.virtual_memory()
        disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
        producer.produce("bench.bare", json.dumps([cpu, memory.available, disk, net]).encode(), "host-0")
        producer.poll(0)
    producer.flush(5)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:5]))
