"""What the agent costs: CPU, memory and start-up time at a given interval, next to an idle Python with its imports.

    python bench/agent_cost.py --bootstrap-servers 127.0.0.1:9092 --seconds 60

Prints JSON. Both run at the same time, for the same seconds, so that whatever else the machine does meets both. CPU
is user and system time from the process's own rusage between the end of a warm-up and the end of the run, as a share
of one core; memory is resident at the end. The topics are created, and named after the run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

WARM_UP_S = 5.0


def main() -> None:
    """Runs both and prints the comparison."""
    parser = argparse.ArgumentParser(description="What the agent costs.")
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--interval", default="1s")
    parser.add_argument("--role", choices=["agent", "idle"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        _measured(options.role, options.seconds, options.interval)
        return

    from connectors.kafka import ensure_topics
    from connectors.settings import KafkaSettings

    run = uuid.uuid4().hex[:8]
    topics = {f"{name}_topic": f"bench.{run}.{name}" for name in ("usage", "inventory", "dead_letter")}
    ensure_topics(KafkaSettings(bootstrap_servers=options.bootstrap_servers, **topics))
    environment = {
        **os.environ,
        "VACANCY_KAFKA__BOOTSTRAP_SERVERS": options.bootstrap_servers,
        **{f"VACANCY_KAFKA__{key.upper()}": topic for key, topic in topics.items()},
    }
    with tempfile.TemporaryDirectory() as directory:
        children = {
            role: subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), "--role", role, *_passed_on(options)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=directory,
            )
            for role in ("agent", "idle")
        }
        results: dict[str, Any] = {}
        for role, child in children.items():
            out, log = child.communicate(timeout=options.seconds + 60)
            if child.returncode:
                sys.exit(f"{role} ended with {child.returncode}: {log.decode()}")
            results[role] = json.loads(out)
            results[role]["said"] = log.decode().splitlines()[-1:]
    agent, idle = results["agent"], results["idle"]
    results["seconds"], results["interval"] = options.seconds, options.interval
    results["memory_ratio"] = round(agent["rss_mib"] / idle["rss_mib"], 2)
    print(json.dumps(results, indent=2))


def _passed_on(options: argparse.Namespace) -> list[str]:
    return ["--seconds", str(options.seconds), "--interval", options.interval]


def _measured(role: str, seconds: float, interval: str) -> None:
    """In the child: does its part, while a thread takes the figures and ends it."""
    import jobs.agent
    import jobs.cli

    del jobs.agent  # imported for what it costs

    figures: dict[str, Any] = {}

    def measure() -> None:
        time.sleep(WARM_UP_S)
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        time.sleep(seconds)
        after, ended = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        figures["cpu_percent_of_one_core"] = round(100 * cpu_s / (ended - began), 3)
        figures["context_switches_per_s"] = round(
            (after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw) / (ended - began), 1
        )
        figures["rss_mib"] = round(_resident_bytes() / 2**20, 1)
        figures["start_and_warm_up_cpu_s"] = round(before.ru_utime + before.ru_stime, 2)
        print(json.dumps(figures), flush=True)
        if role == "agent":
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=measure)
    thread.start()
    if role == "agent":
        jobs.cli.main(["agent", "--interval", interval])
    thread.join()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
