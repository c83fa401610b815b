"""Schedulers that claim at once, for as long as the system lives: what they were told, and when."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any, Self

import psycopg2
from confluent_kafka import Producer

from tests.harness.histories import BASE_MS, encode_usage, usage_event
from vacancy import (
    ContendedError,
    NoHostFitsError,
    Request,
    Scheduler,
    SchedulerSettings,
    TimedOutError,
    UnreachableError,
)
from vacancy.connectors.kafka.client import producer
from vacancy.jobs.settings import Settings
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

HOSTS = 200
"""A tenth of the lab's fleet, so that a sample mostly has some of them and a claim costs what it costs elsewhere."""
VCPUS = 4
ZONE = "claimed"
KEPT = 20
"""So many claims a claimer holds at a time; with the others' they fill most of the hosts."""
PAUSE_SECONDS = 0.5
"""Between two claims of a claimer, so that the lab's database leaves the other parts some of the machine."""
REFUSED_SECONDS = 3.0
"""After a refusal, for which all hosts are looked at."""


@dataclass
class Promises:
    """What claimers were told.

    Attributes:
        held: acknowledged and not given back: the host by consumer.
        unsure: asked for, or given back, without an answer.
        answered_s: when a call was answered, by time.monotonic().
        errors: what should never be said, by its text.
    """

    held: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    answered_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    claims: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Claimers:
    """Threads that claim on hosts of their own, which always report the same; a context manager.

    Each has one ``Scheduler`` for its whole life. The hosts' figures show no instance, so all that is claimed and
    not given back counts against them.
    """

    def __init__(self, settings: Settings, claimers: int) -> None:
        self.promises = Promises()
        self._settings = settings
        self._dsn = settings.postgres.scheduler_dsn
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._report)]
        self._threads += [threading.Thread(target=self._claim, args=(seed,)) for seed in range(claimers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the claims and the hosts' events."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def longest_gap_s(self, since_s: float, until_s: float | None = None) -> float:
        """The longest time without an answer to any of them, within two times of time.monotonic()."""
        until_s = until_s or time.monotonic()
        answered = [since_s, *(at for at in list(self.promises.answered_s) if since_s <= at <= until_s), until_s]
        return max(later - earlier for earlier, later in pairwise(answered))

    def wait_s(self, since_s: float) -> float | None:
        """How long after a time the first answer came; None: there is none yet."""
        later = [at for at in list(self.promises.answered_s) if at > since_s]
        return later[0] - since_s if later else None

    def faults(self, dsn: str) -> list[str]:
        """What is wrong with the table of claims: lost or overcommitted ones; and what claimers should not have met."""
        with self.promises.lock:  # what is under way is unsure
            held, unsure = dict(self.promises.held), set(self.promises.unsure)
            with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT consumer::text, host_id, vcpus FROM vacancy.claim WHERE expires_at > now()")
                rows = cursor.fetchall()
        table = {consumer: host for consumer, host, _ in rows}
        used: dict[str, int] = {}
        for _, host, vcpus in rows:
            used[host] = used.get(host, 0) + vcpus
        lost = [consumer for consumer, host in held.items() if table.get(consumer) != host]
        unknown = table.keys() - held.keys() - unsure
        found = [f"lost: {lost[:3]} of {len(held)}"] if lost else []
        found += [f"nobody asked for: {sorted(unknown)[:3]}"] if unknown else []
        found += [f"overcommitted: {host} has {VCPUS} and holds {sum_}" for host, sum_ in used.items() if sum_ > VCPUS]
        return found + [f"{count} times {error}" for error, count in self.promises.errors.items()]

    def _claim(self, seed: int) -> None:
        random = Random(seed)
        promises = self.promises
        settings = SchedulerSettings(connections=1, claim_ttl=timedelta(days=1))
        mine: deque[str] = deque()
        due: list[str] = []
        asked: tuple[str, int] | None = None
        with closing(Scheduler(self._dsn, settings)) as scheduler:
            while not self._stop.is_set():
                try:
                    if not due and len(mine) >= KEPT:
                        due = [mine.popleft()]
                        with promises.lock:
                            promises.unsure.update(due)
                            promises.held.pop(due[0])
                    if due:
                        scheduler.release(*due)
                        with promises.lock:
                            promises.unsure.difference_update(due)
                        due = []
                    if asked is None:
                        asked = str(uuid.UUID(int=random.getrandbits(128), version=4)), random.choice((1, 1, 2, 4))
                        with promises.lock:
                            promises.unsure.add(asked[0])
                    consumer, vcpus = asked
                    (claim,) = scheduler.claim(Request(vcpus=vcpus, memory_mb=64, disk_gb=1, zone=ZONE), [consumer])
                    with promises.lock:
                        promises.held[consumer] = claim.host_id
                        promises.unsure.discard(consumer)
                        promises.claims += 1
                    promises.answered_s.append(time.monotonic())
                    mine.append(consumer)
                    asked = None
                    self._stop.wait(PAUSE_SECONDS)
                except NoHostFitsError as refused:
                    # Full is an answer. That every host is stale is none.
                    with promises.lock:
                        promises.unsure.discard(asked[0] if asked else "")
                    asked = None
                    if refused.refusal.dimension == "vcpus_free":
                        promises.answered_s.append(time.monotonic())
                    if mine:
                        due = [mine.popleft()]
                        with promises.lock:
                            promises.unsure.update(due)
                            promises.held.pop(due[0])
                    self._stop.wait(REFUSED_SECONDS)
                except (ContendedError, UnreachableError, TimedOutError):
                    self._stop.wait(0.1)  # and again with the same consumer
                except Exception as error:  # noqa: BLE001  # whoever asks for faults() is told
                    promises.errors[f"{type(error).__name__}: {error}"] = promises.errors.get(str(error), 0) + 1
                    self._stop.wait(0.2)

    def _report(self) -> None:
        """The hosts' events, each second."""
        kafka = self._settings.kafka
        sender: Producer = producer(kafka, linger_ms=0)
        encoder = Encoder(Event.INVENTORY)
        for number in range(HOSTS):
            name = f"claimed-{number}"
            sender.produce(kafka.inventory_topic, encoder.encode(INVENTORY | {"host_id": name, "name": name}), name)
        seq = 0
        while not self._stop.wait(1):
            seq += 1
            for number in range(HOSTS):
                event = usage_event(
                    host_id=f"claimed-{number}",
                    seq=seq,
                    monotonic_ns=time.monotonic_ns(),
                    vcpus_capacity=VCPUS,
                    memory_mb_capacity=65_536,
                    memory_mb_available=65_536,
                    disk_gb_capacity=1000,
                    disk_gb_available=1000,
                )
                try:
                    sender.produce(kafka.usage_topic, encode_usage(event), event["host_id"])
                except BufferError:
                    break
            sender.poll(0)
        sender.flush(30)


INVENTORY: dict[str, Any] = {
    "agent_version": "1",
    "agent_time": BASE_MS,
    "boot_id": "boot",
    "zone": ZONE,
    "status": "ENABLED",
    "status_reason": None,
    "inventories": {
        name: {
            "total": total,
            "reserved": 0,
            "min_unit": 1,
            "max_unit": total,
            "step_size": 1,
            "allocation_ratio": 1.0,
        }
        for name, total in (("VCPU", VCPUS), ("MEMORY_MB", 65_536), ("DISK_GB", 1000))
    },
    "traits": [],
    "aggregates": [],
    "numa_cells": [],
    "pci_pools": [],
    "reporting_interval_ms": 1000,
    "source": "host",
    "allocated": {},
}
