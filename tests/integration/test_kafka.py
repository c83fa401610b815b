"""The topics on a real broker: created as the system needs them, checked, mended."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not in its __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tests.harness.topic import own_topics
from vacancy.connectors.kafka import dead_letters
from vacancy.connectors.kafka.client import client_config, ensure_topics, producer, topic_configs, topic_problems
from vacancy.connectors.settings import KafkaSecurity, KafkaSettings
from vacancy.schemas.errors import ConfigError, VacancyError

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer


@pytest.fixture
def settings(kafka_broker: KafkaServer) -> KafkaSettings:
    """Topics that no other test has."""
    return own_topics(kafka_broker.bootstrap_servers)


def _actual(settings: KafkaSettings, topic: str) -> dict[str, str]:
    admin = AdminClient(client_config(settings))
    (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result().items()}


def test_missing_topics_are_created_as_the_system_needs_them(settings: KafkaSettings) -> None:
    problems = topic_problems(settings)
    assert [problem.what for problem in problems] == [
        f"topic {name} does not exist" for name in topic_configs(settings)
    ]
    assert all(problem.mend.startswith("kafka-topics.sh --bootstrap-server") for problem in problems)

    assert set(ensure_topics(settings)) == set(topic_configs(settings))
    assert topic_problems(settings) == []
    assert ensure_topics(settings) == []
    for topic, config in topic_configs(settings).items():
        actual = _actual(settings, topic)
        assert {key: actual[key] for key in config} == config
    assert int(_actual(settings, settings.dead_letter_topic)["max.message.bytes"]) >= 2 * 2**20
    partitions = AdminClient(client_config(settings)).list_topics(timeout=10).topics[settings.usage_topic].partitions
    assert len(partitions) == 2


def test_several_may_create_them_at_once(settings: KafkaSettings) -> None:
    created: list[list[str]] = []
    threads = [threading.Thread(target=lambda: created.append(ensure_topics(settings))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 6
    assert sorted(name for names in created for name in names) == sorted(topic_configs(settings))


def test_wrong_settings_are_found_and_the_command_mends_them(settings: KafkaSettings) -> None:
    admin = AdminClient(client_config(settings))
    topics = [NewTopic(name, 1, 1, config={"max.message.bytes": "1048588"}) for name in topic_configs(settings)]
    for future in admin.create_topics(topics).values():
        future.result()
    problems = topic_problems(settings)
    assert {problem.what.removeprefix("topic ") for problem in problems} == {
        *(f"{name} has message.timestamp.type=CreateTime, must be LogAppendTime" for name in topic_configs(settings)),
        f"{settings.inventory_topic} has cleanup.policy=delete, must be compact",
        f"{settings.dead_letter_topic} has max.message.bytes=1048588, must be 1114124",
    }
    for problem in problems:
        command = re.fullmatch(r"kafka-configs\.sh .* --entity-name (\S+) --add-config (\S+)=(\S+)", problem.mend)
        assert command
        topic, key, value = command.groups()
        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()
    assert topic_problems(settings) == []


def test_the_broker_sets_the_time_and_takes_a_value_of_1_mib(settings: KafkaSettings) -> None:
    ensure_topics(settings)
    client = producer(settings)
    errors: list[object] = []
    for topic in (settings.usage_topic, settings.dead_letter_topic):
        value = bytes(range(256)) * 4096
        client.produce(topic, value, b"h", partition=0, timestamp=1, on_delivery=lambda error, _: errors.append(error))
    assert client.flush(20) == 0
    assert errors == [None, None]
    consumer = Consumer(client_config(settings) | {"group.id": "t", "enable.auto.commit": False})
    consumer.assign([TopicPartition(settings.usage_topic, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    kind, milliseconds = message.timestamp()
    assert (kind, milliseconds > 1_000_000) == (TIMESTAMP_LOG_APPEND_TIME, True)


def test_an_unreachable_broker_is_one_line_within_the_limit() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    for check in (ensure_topics, topic_problems):
        with pytest.raises(VacancyError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 .*refused.*kafka\.boot"):
            check(nowhere, timeout_s=1)


def test_security_settings_reach_the_client() -> None:
    security = KafkaSecurity.model_validate(
        {"protocol": "SASL_SSL", "mechanism": "SCRAM-SHA-512", "username": "u", "password": "p"}
    )
    config = client_config(KafkaSettings(security=security))
    assert config["security.protocol"] == "SASL_SSL"
    assert (config["sasl.mechanism"], config["sasl.username"], config["sasl.password"]) == ("SCRAM-SHA-512", "u", "p")


def test_settings_that_the_client_refuses_are_a_config_error(settings: KafkaSettings, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    refused = settings.model_copy(update={"security": KafkaSecurity(protocol="SSL", ca_file=file)})
    with pytest.raises(ConfigError, match=rf"kafka\.security\.ca_file: {file}: No such file or directory$"):
        producer(refused)
    file.write_text("no certificate", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the Kafka client refuses the settings under kafka: .*ca\.location"):
        producer(refused)
    with pytest.raises(ConfigError, match=r"the Kafka client refuses the settings under kafka: .*ca\.location"):
        list(dead_letters.read(refused))
