"""How a database with faults affects requests.

In: databases, a DSN by fault; answering, the faults with which the database still answers; hosts; requests; behind, the
server in front of which network faults are simulated.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import closing
from typing import Any

import nova.conf

from tests.nova.programs import stage
from vacancy.connectors.nova import reading


class Slow:
    """A port in front of a server that delays all data by so many seconds; None: it never answers."""

    def __init__(self, port: int, seconds: float | None) -> None:
        self._server, self._seconds = port, seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        held = []
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._seconds is None:
                held.append(client)
                continue
            server = socket.create_connection(("127.0.0.1", self._server))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65_536):
                time.sleep(self._seconds or 0)
                other.sendall(data)
        except OSError:
            pass
        finally:
            one.close()
            other.close()


def main() -> None:
    """Prints by fault: the weigher's time per request in ms, failures, the best hosts, and the counts."""
    given = stage.arguments()
    stage.configure(stage.vacancy("host=nowhere", max_age=1000, timeout=0.05))
    fleet = stage.Fleet(given["hosts"])
    hosts = stage.hosts_of(fleet)
    states = fleet.states(hosts)
    seen = {}
    for fault, dsn in given["databases"].items():
        answers = fault in given["answering"]
        seen[fault] = _under(dsn, hosts, states, given["requests"], answers=answers)
    behind = given["behind"]
    for fault, late_s in (("silent", None), ("slow network", 0.5)):
        with closing(Slow(behind["port"], late_s)) as slow:
            dsn = f"host=127.0.0.1 port={slow.port} user={behind['user']} dbname={behind['dbname']}"
            seen[fault] = _under(dsn, hosts, states, given["requests"])
    print(json.dumps(seen))


def _under(dsn: str, hosts: Any, states: list[Any], number: int, *, answers: bool = False) -> dict[str, Any]:
    nova.conf.CONF.set_override("dsn", dsn, "vacancy")
    reading.forget()
    [ours] = [one for one in hosts.weighers if type(one).__name__ == "VacancyWeigher"]
    plain, log, counts = ours.weigh_objects, stage.Kept(), reading.shared().table.counts
    logging.getLogger("vacancy.nova").addHandler(log)
    took: list[float] = []
    best: list[list[Any]] = []
    failed = 0

    def timed(weighed: Any, spec: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(weighed, spec)
        finally:
            took.append(1e3 * (time.perf_counter() - began))

    def request() -> None:
        nonlocal failed
        before = counts["reads"]
        try:
            chosen = hosts.get_weighed_hosts(states, stage.spec())[0].obj
            best.append([int(chosen.uuid[-12:]), counts["reads"] > before])
        except Exception:  # noqa: BLE001  # any exception means that the request has failed
            failed += 1

    while answers and not counts["reads"]:  # a busy machine may take longer than the time-out to connect
        request()
        time.sleep(0.05)
    ours.weigh_objects = timed
    try:
        for _ in range(number):
            request()
    finally:
        ours.weigh_objects = plain
        logging.getLogger("vacancy.nova").removeHandler(log)
    seen = {"took_ms": took, "failed": failed, "best": best, "counts": dict(counts), "log": log.lines}
    reading.forget()
    return seen


if __name__ == "__main__":
    main()
