"""Cinder's pools: their free figure agrees with Cinder's own capacity filter, and their events reach the broker."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cinder.conftest import RunningCinder
from tests.harness.installation import config_file
from tests.harness.process import Process, vacancy
from tests.harness.topic import own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.openstack.cinder import UNLIMITED_GB, Cinder, CinderError, Pool
from vacancy.connectors.settings import KafkaSettings, StorageSettings
from vacancy.jobs.local import settings_file
from vacancy.jobs.reporters.storage import Storage
from vacancy.jobs.settings import Settings
from vacancy.schemas.codec import Encoder, decode
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.events import Event

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_S = 60.0
AGGREGATE = "5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11"
FAST = {
    "pool_name": "fast",
    "total_capacity_gb": 1000,
    "free_capacity_gb": 400.5,
    "allocated_capacity_gb": 600,
    "provisioned_capacity_gb": 900,
    "reserved_percentage": 10,
    "thin_provisioning_support": True,
    "max_over_subscription_ratio": "2.5",
}
"""(1000 - 100) * 2.5 - 900 = 1350 GiB are free."""


def pools_of(cinder: RunningCinder, **settings: Any) -> dict[str, Pool]:
    return {pool.name: pool for pool in Cinder(cinder.settings(**settings)).pools()}


def any_pool(rng: random.Random, number: int) -> dict[str, Any]:
    """A pool as drivers report it, unusual values included."""
    total = rng.choice([0, 1, 100, 999.99, 1000, 12_345.678, 250_000])
    pool = {
        "pool_name": f"pool-{number}",
        "total_capacity_gb": total,
        "free_capacity_gb": round(total * rng.random(), rng.choice([0, 2])),
        "allocated_capacity_gb": rng.randrange(0, 2000),
        "reserved_percentage": rng.choice([0, 0, 7, 10, 33, 95]),
        "thin_provisioning_support": rng.random() < 0.6,
    }
    if rng.random() < 0.7:
        pool["provisioned_capacity_gb"] = round(rng.random() * 2000, rng.choice([0, 2]))
    if rng.random() < 0.7:
        pool["max_over_subscription_ratio"] = rng.choice(["auto", "1.0", "20.0", 2.5, 0.5, 1.337])
    if rng.random() < 0.15:
        pool["free_capacity_gb"] = rng.choice(["infinite", "unknown"])
    if rng.random() < 0.15:
        pool["total_capacity_gb"] = rng.choice(["infinite", "unknown"])
    return pool


def test_free_is_what_cinders_capacity_filter_lets_in(cinder: RunningCinder) -> None:
    rng = random.Random(7)
    cinder.report("node-0@any", *(any_pool(rng, number) for number in range(200)))
    free = {name: pool.room.free for name, pool in pools_of(cinder).items() if name.startswith("node-0@any")}
    assert len(free) == 200
    verdicts = cinder.fits({name: [max(1, gb), max(1, gb + 1)] for name, gb in free.items()})
    expected = {name: [gb >= 1, gb == UNLIMITED_GB] for name, gb in free.items()}
    assert verdicts == expected
    # The random pools include all kinds.
    assert sum(gb == UNLIMITED_GB for gb in free.values()) >= 10
    assert sum(gb <= 0 for gb in free.values()) >= 10
    assert sum(0 < gb < UNLIMITED_GB for gb in free.values()) >= 50
    cinder.down("node-0@any")


def test_a_pool_is_a_provider_that_shares_by_aggregate_and_is_disabled_while_it_is_down(cinder: RunningCinder) -> None:
    cinder.report("node-1@lvm", FAST | {"backend_state": "down"})
    aggregates = {"*@lvm#*": [AGGREGATE], "*#fast": [AGGREGATE], "*#slow": ["not its"]}
    pool = pools_of(cinder, aggregates=aggregates)["node-1@lvm#fast"]
    usage = pool.usage("boot", 1)
    assert (usage.disk_gb_capacity, usage.disk_gb_allocated, usage.disk_gb_available) == (2250, 900, 400)
    assert (usage.vcpus_capacity, usage.memory_mb_capacity, usage.instances) == (0, 0, 0)
    inventory = pool.inventory("boot", cinder.settings(aggregates=aggregates))
    assert (inventory.status, inventory.status_reason) == ("DISABLED", "pool 2.5x, 10% reserved, down")
    disk = inventory.inventories["DISK_GB"]
    assert (disk.total, disk.reserved, disk.allocation_ratio, disk.capacity) == (1000, 100, 2.5, 2250)
    assert inventory.traits == ("MISC_SHARES_VIA_AGGREGATE",)
    assert inventory.aggregates == (AGGREGATE,)
    assert inventory.source == "cinder"
    assert pool.reported_at is not None


def test_what_is_wrong_is_said_with_what_to_do(cinder: RunningCinder) -> None:
    with pytest.raises(ConfigError, match=r"storage\.auth: .*auth_url"):
        Cinder(StorageSettings())
    with pytest.raises(ConfigError, match=r"storage\.auth: .*correct auth_type"):
        Cinder(StorageSettings.model_validate({"auth": {"auth_type": "guess"}}))
    with pytest.raises(ConfigError, match=r"storage\.auth: .*keystoneauth1's options"):
        Cinder(StorageSettings.model_validate({"auth": {"auth_type": "admin_token", "usrname": "hunter2"}}))
    with pytest.raises(CinderError, match=r"is Cinder's API up"):
        Cinder(cinder.settings(endpoint="http://127.0.0.1:1/v3")).pools()
    with pytest.raises(CinderError, match=r"not an answer of Cinder's"):
        Cinder(cinder.settings(endpoint=f"http://127.0.0.1:{cinder.port}/healthcheck?")).pools()


def test_a_pool_that_is_not_reported_any_more_is_not_sent(
    cinder: RunningCinder, caplog: pytest.LogCaptureFixture
) -> None:
    """Cinder may keep returning the last report that it received."""
    cinder.report("node-2@lvm", FAST)
    settings = cinder.settings()
    pools = [pool for pool in Cinder(settings).pools() if pool.name == "node-2@lvm#fast"]
    now = time.time()
    events = HostEvents(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "test")
    encoders = {event: Encoder(event) for event in Event}
    sent = Storage(settings, lambda: pools, events, encoders, wall_clock=lambda: now)
    now += 190
    sent.turn()
    sent.turn()
    assert events.left == 0
    assert caplog.text.count("pool node-2@lvm#fast: its volume service does not report") == 1
    now -= 20
    sent.turn()
    assert events.left == 2
    events.close(0)
    cinder.down("node-2@lvm")


@contextmanager
def storage(directory: Path, kafka: KafkaSettings, settings: StorageSettings) -> Iterator[Process]:
    """`vacancy storage` as a process."""
    both = Settings().model_copy(update={"kafka": kafka, "storage": settings})
    config_file(directory).write_text(settings_file.dumps(both), encoding="utf-8")
    with Process(
        vacancy("storage", "--config", config_file(directory)), directory, directory / "storage.log"
    ) as process:
        yield process


def test_the_command_sends_pools_as_cinder_changes(
    cinder: RunningCinder, kafka_broker: KafkaServer, tmp_path: Path
) -> None:
    kafka = own_topics(kafka_broker.bootstrap_servers, partitions=1)
    ensure_topics(kafka)
    cinder.report("node-1@lvm", FAST)

    def told(topic: str) -> list[dict[str, Any]]:
        return [decode(record.value).record for record in read_topic(kafka, topic) if record.value]

    def free() -> int | None:
        usage = [event for event in told(kafka.usage_topic) if event["disk_gb_capacity"] == 2250]
        return usage[-1]["disk_gb_capacity"] - usage[-1]["disk_gb_allocated"] if usage else None

    settings = cinder.settings(interval="100 ms", aggregates={"*": [AGGREGATE]})
    with storage(tmp_path, kafka, settings) as running:
        wait_until(lambda: free() == 1350, LIMIT_S, "the pool's usage does not arrive")
        cinder.report("node-1@lvm", FAST | {"provisioned_capacity_gb": 1000})
        wait_until(lambda: free() == 1250, LIMIT_S, "the pool's new usage does not arrive")
        inventories = told(kafka.inventory_topic)
        assert [event["name"] for event in inventories] == ["node-1@lvm#fast"]  # it did not change
        assert inventories[0]["source"] == "cinder"
        assert inventories[0]["aggregates"] == [AGGREGATE]
        kafka_broker.stop()
        running.wait_for("takes no events", LIMIT_S)
        cinder.report("node-1@lvm", FAST | {"provisioned_capacity_gb": 1100})
        kafka_broker.start()
        wait_until(lambda: free() == 1150, LIMIT_S, "the newest usage does not arrive once the broker is back")
        said = Counter(re.findall(r"topic (\S+) (?:at \S+ )?(takes no events|takes events again)", running.output))
        assert set(said.values()) == {1}, said
        sequence = [event["seq"] for event in told(kafka.usage_topic)]
        # Those behind an event that was given up in flight may arrive again, in their order; the job leaves them out.
        assert list(dict.fromkeys(sequence)) == sorted(set(sequence))
        assert "stopped" in running.stop()
