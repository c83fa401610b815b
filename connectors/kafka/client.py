"""Kafka: client properties, the producer, and the three topics with the settings that the system relies on.

What always holds:

- Event time is the broker's append time, so every topic has ``message.timestamp.type=LogAppendTime``.
- The inventory topic is compacted and nothing is deleted from it by age: it keeps each host's newest inventory.
- A record that fits into the usage topic fits into the dead-letter topic too, with the headers added there.
- The client library's own log lines go to the logger ``vacancy.librdkafka`` at level DEBUG. The important ones also
  arrive as errors, which are reported in this project's words.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from vacancy.connectors.settings import KafkaSettings
from vacancy.schemas.errors import ConfigError, NoAnswerError, VacancyError

if TYPE_CHECKING:
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not in its __all__
        AdminClient,
        TopicDescription,
    )

Right = Literal["READ", "WRITE"]
"""What a component does with a topic, as Kafka's access control lists name it."""

_LIBRARY_LOG = logging.getLogger("vacancy.librdkafka")
_HOUR_MS = 3_600_000
_MIB = 1_048_576
_MAX_EVENT_BYTES = _MIB + 65_536
"""Largest record batch of the two event topics: a value of 1 MiB plus its framing."""
_MAX_DEAD_LETTER_BYTES = 2 * _MIB
_MAX_HEADERS_BYTES = 65_536
_LOOK_S = 2.0
_UNVERIFIED = "certificate verify failed"
# Errors of brokers and the client library when a client is rejected, and what to do about each.
_REMEDIES: tuple[tuple[str, str], ...] = (
    (
        r"(?i)authorization failed",
        "grant this client its rights (docs/security.md), or correct who it is in kafka.security",
    ),
    (r"SASL mechanism .* not (enabled|supported)|Unsupported SASL|no mechanism", "correct kafka.security.mechanism"),
    (r"(?i)invalid credentials|authentication failed", "correct kafka.security.username and password"),
    (
        r"(?i)alert (certificate|bad certificate|unknown ca|handshake)|alert number (42|4[4-6]|48|116)",
        "correct kafka.security.certificate_file and key_file",
    ),
    (
        r"(?i)hostname mismatch|ip address mismatch",
        "name the brokers in kafka.bootstrap_servers as their certificates do",
    ),
    ("certificate has expired", "have the broker's certificate renewed"),
    (_UNVERIFIED, "correct kafka.security.ca_file"),
    (
        r"incorrect security\.protocol|PLAINTEXT broker listener|SSL connection closed by peer",
        "correct kafka.security.protocol",
    ),
)


class Problem(NamedTuple):
    """A fault in a setup: what is wrong, and the command or setting that fixes it."""

    what: str
    mend: str


class _LibraryLog:
    """The logger that is passed to the client library."""

    def log(self, level: int, message: str, *args: Any) -> None:
        del level  # The library logs every lost connection as an error; here it is only a detail.
        _LIBRARY_LOG.debug(message, *args)


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """Properties of any client (librdkafka's names): where the brokers are and how to authenticate.

    Raises:
        ConfigError: a file of kafka.security cannot be read.
    """
    security = settings.security
    optional = {
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.username,
        "sasl.password": None if security.password is None else security.password.get_secret_value(),
        "ssl.ca.location": _readable("ca_file", security.ca_file),
        "ssl.certificate.location": _readable("certificate_file", security.certificate_file),
        "ssl.key.location": _readable("key_file", security.key_file),
        "ssl.key.password": None if security.key_password is None else security.key_password.get_secret_value(),
    }
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": security.protocol,
        # A topic that a broker creates automatically would lack the settings that the system relies on.
        "allow.auto.create.topics": False,
        "logger": _LibraryLog(),
        **{name: str(value) for name, value in optional.items() if value is not None},
    }


def _readable(key: str, file: Path | None) -> Path | None:
    if file is not None:
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"kafka.security.{key}: {file}: {error.strerror}") from None
    return file


def producer(settings: KafkaSettings, on_error: Callable[[KafkaError], None] | None = None, **more: Any) -> Producer:
    """A producer that does not lose, repeat or reorder accepted messages, even while the broker is away for hours.

    Args:
        settings: where the brokers are.
        on_error: called from poll() with connection errors and the like.
        more: additional or overriding properties; underscores stand for the dots in their names.

    Raises:
        ConfigError: the client refuses the settings.
    """
    config = client_config(settings) | {
        "enable.idempotence": True,
        "compression.type": "lz4",
        "linger.ms": 5,
        # No time-out: the caller decides which messages to drop. With one, what is behind a message that timed out
        # in flight may be written twice.
        "message.timeout.ms": 0,
        # A broker that is silent: so soon its partitions' new leaders are asked. What it took counts once all the same.
        "request.timeout.ms": 5_000,
        "socket.timeout.ms": 6_000,
        "socket.connection.setup.timeout.ms": 5_000,
        "message.max.bytes": _MAX_EVENT_BYTES,
        "reconnect.backoff.max.ms": 5_000,
        **({} if on_error is None else {"error_cb": on_error}),
    }
    try:
        return Producer(config | {name.replace("_", "."): value for name, value in more.items()})
    except KafkaException as error:
        raise refused(error) from None


def topic_configs(settings: KafkaSettings) -> dict[str, dict[str, str]]:
    """The three topics by name, and the settings each is created with."""
    common = {
        "message.timestamp.type": "LogAppendTime",
        # With three copies an acknowledged event is on two brokers.
        "min.insync.replicas": "2" if settings.replication_factor >= 3 else "1",
    }
    return {
        settings.usage_topic: common
        | {
            "cleanup.policy": "delete",
            "retention.ms": str(24 * _HOUR_MS),
            # Only closed segments are deleted.
            "segment.ms": str(_HOUR_MS),
            "max.message.bytes": str(_MAX_EVENT_BYTES),
        },
        settings.inventory_topic: common
        | {
            "cleanup.policy": "compact",
            # A job that was stopped for up to this long still reads that a host was retired.
            "delete.retention.ms": str(7 * 24 * _HOUR_MS),
            # Only closed segments are compacted, and by default they close at 1 GiB or after a week.
            "segment.ms": str(_HOUR_MS),
            "segment.bytes": str(16 * _MIB),
            "min.cleanable.dirty.ratio": "0.1",
            "max.compaction.lag.ms": str(2 * _HOUR_MS),
            "max.message.bytes": str(_MAX_EVENT_BYTES),
        },
        settings.dead_letter_topic: common
        | {
            "cleanup.policy": "delete",
            "retention.ms": str(14 * 24 * _HOUR_MS),
            "max.message.bytes": str(_MAX_DEAD_LETTER_BYTES),
        },
    }


def ensure_topics(
    settings: KafkaSettings, rights: Mapping[str, Right] | None = None, timeout_s: float = 15.0
) -> list[str]:
    """Creates the topics that are missing and returns their names; waits until the brokers serve them.

    Existing topics are not changed, see :func:`topic_problems`. Two processes may run this at the same time.

    Args:
        settings: the brokers and the topics.
        rights: the topics to create, and the right that the caller needs on each; None: all three, without a check.
        timeout_s: how long to wait for the brokers.

    Raises:
        ConfigError: the client refuses the settings.
        VacancyError: no broker answers, it refuses a topic, or a right is missing.
    """
    from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # public, but not in its __all__

    admin, errors = _admin(settings)
    deadline = time.monotonic() + timeout_s
    names = topic_configs(settings).keys() if rights is None else rights.keys()
    topics = _topics(admin, settings, names, errors, timeout_s)
    for name, topic in topics.items():
        if rights and rights[name] not in {operation.name for operation in topic.authorized_operations or ()}:
            raise _forbidden(settings, f"{rights[name].capitalize()} on topic {name}")
    missing = set(names - topics.keys())
    wanted = [
        NewTopic(name, settings.partitions, settings.replication_factor, config=config)
        for name, config in topic_configs(settings).items()
        if name in missing
    ]
    created = []
    futures = admin.create_topics(wanted, request_timeout=timeout_s) if wanted else {}
    for name, future in futures.items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if _code(error) == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise VacancyError(
                    f"topic {name} does not exist, and {_who(settings)} may not create it; "
                    "have it created: `vacancy doctor` says how"
                ) from None
            if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                raise VacancyError(f"Kafka does not create the topic {name}: {_reason(error)}") from None
    while not _take_requests(admin, missing, timeout_s):
        if time.monotonic() > deadline:
            raise VacancyError(
                f"Kafka created {', '.join(sorted(missing))} but does not serve all partitions after {timeout_s:g} s; "
                "see the brokers' logs"
            )
        time.sleep(0.02)
    return sorted(created)


def topic_problems(settings: KafkaSettings, timeout_s: float = 10.0) -> list[Problem]:
    """Faults in the topics' settings that the system relies on; sizes and retention are the operator's choice.

    Raises:
        ConfigError: the client refuses the settings.
        VacancyError: no broker answers, or it refuses the request.
    """
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]  # as above

    admin, errors = _admin(settings)
    topics = _topics(admin, settings, topic_configs(settings), errors, timeout_s)
    problems = [
        Problem(f"topic {name} does not exist", _create_command(settings, name, config))
        for name, config in topic_configs(settings).items()
        if name not in topics
    ]
    problems += [
        Problem(f"topic {name} has a partition without a leader", "start the Kafka brokers that hold it")
        for name, topic in topics.items()
        if any(partition.leader is None or partition.leader.id < 0 for partition in topic.partitions)
    ]
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    actual: dict[str, dict[str, str]] = {}
    futures = admin.describe_configs(resources, request_timeout=timeout_s) if resources else {}
    for resource, future in futures.items():
        try:
            actual[resource.name] = {name: entry.value or "" for name, entry in future.result().items()}
        except KafkaException as error:
            if _code(error) == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise _forbidden(settings, f"DescribeConfigs on topic {resource.name}") from None
            raise VacancyError(f"Kafka does not show the settings of {resource.name}: {_reason(error)}") from None
    for name, config in actual.items():
        right = _corrections(settings, name, config, actual.get(settings.usage_topic, {}))
        problems += [
            Problem(
                f"topic {name} has {key}={config.get(key)}, must be {value}", _alter_command(settings, name, key, value)
            )
            for key, value in right.items()
        ]
    return problems


def open_transactions(settings: KafkaSettings, watch_s: float = 2.0, timeout_s: float = 10.0) -> list[Problem]:
    """Partitions whose readers stand still because of a transaction that nobody commits or aborts.

    The job reads what is committed alone, and so no further than the last stable offset: where the first transaction
    that is open begins. That offset is compared with the end twice; one that moves meanwhile holds up nobody for long.

    Args:
        settings: the brokers and the topics.
        watch_s: how long after the first look the second one is.
        timeout_s: how long to wait for the brokers.

    Raises:
        ConfigError: the client refuses the settings.
        VacancyError: no broker answers, or it refuses the request.
    """
    admin, errors = _admin(settings)
    try:
        topics = admin.list_topics(timeout=timeout_s).topics
        partitions = [
            TopicPartition(name, number)
            for name in topic_configs(settings)
            if name in topics
            for number in topics[name].partitions
        ]
        held_back = _held_back(admin, partitions, timeout_s)
        if held_back:
            time.sleep(watch_s)
            now = _held_back(admin, list(held_back), timeout_s)
            held_back = {
                place: now[place] for place, (offset, _) in held_back.items() if now.get(place, (-1, 0))[0] == offset
            }
    except KafkaException as error:
        raise failed(settings, timeout_s, error, errors) from None
    return [
        Problem(
            f"partition {place.partition} of topic {place.topic} is read to offset {offset} of {end}: a transaction "
            "that began there is open, and no event behind it is seen",
            "stop the transactional producer, which is none of ours, or wait until the broker aborts its transaction "
            f"(transaction.timeout.ms); kafka-transactions.sh {_where(settings)} find-hanging names one that stays",
        )
        for place, (offset, end) in sorted(held_back.items(), key=lambda item: (item[0].topic, item[0].partition))
    ]


def _held_back(
    admin: AdminClient, partitions: Iterable[TopicPartition], timeout_s: float
) -> dict[TopicPartition, tuple[int, int]]:
    """Of partitions with an open transaction the last stable offset, and the end."""
    from confluent_kafka import IsolationLevel
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, but not in its __all__

    newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # has no annotations
    asked = dict.fromkeys(partitions, newest)
    if not asked:
        return {}
    # The ends first: what is appended in between must not look held back.
    ends, stable = (
        {
            partition: future.result().offset
            for partition, future in admin.list_offsets(asked, isolation_level=level, request_timeout=timeout_s).items()
        }
        for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED)
    )
    return {partition: (offset, ends[partition]) for partition, offset in stable.items() if offset < ends[partition]}


def _corrections(
    settings: KafkaSettings, name: str, config: Mapping[str, str], usage: Mapping[str, str]
) -> dict[str, str]:
    """The settings of a topic that must change, with their new values."""
    ours = topic_configs(settings)[name]
    right = {key: ours[key] for key in ("message.timestamp.type", "cleanup.policy") if config.get(key) != ours[key]}
    if int(config.get("min.insync.replicas", 1)) < int(ours["min.insync.replicas"]):
        right["min.insync.replicas"] = ours["min.insync.replicas"]
    if name == settings.dead_letter_topic:
        # Compared with the usage topic's actual limit: an operator may have changed it.
        least_bytes = int(usage.get("max.message.bytes", _MAX_EVENT_BYTES)) + _MAX_HEADERS_BYTES
        if int(config.get("max.message.bytes", least_bytes)) < least_bytes:
            right["max.message.bytes"] = str(least_bytes)
    return right


def unreachable(settings: KafkaSettings, waited_s: float, reason: str | None) -> VacancyError:
    """The error for a broker that does not answer, or that rejects this client."""
    reason, remedy = diagnosis(settings, reason)
    if remedy:
        return VacancyError(
            f"Kafka at {settings.bootstrap_servers} cannot be used by {_who(settings)}: {reason}; {remedy}"
        )
    why = f": {reason}" if reason else ""
    return NoAnswerError(
        f"no Kafka broker answers at {settings.bootstrap_servers} within {waited_s:g} s{why}; "
        "start it, or set kafka.bootstrap_servers and kafka.security"
    )


def failed(settings: KafkaSettings, waited_s: float, error: KafkaException, last: LastError) -> VacancyError:
    """The error for a failed call: what the broker said, or why no broker answered."""
    # Negative codes are the library's own. Their timeout says less than the connection error before it.
    reason = last.text if _code(error) < 0 else None
    return unreachable(settings, waited_s, reason or _reason(error))


def diagnosis(settings: KafkaSettings, reason: str | None) -> tuple[str | None, str | None]:
    """The reason of a failed connection, more precise where possible, and what to do; None if that is unknown."""
    if reason and _UNVERIFIED in reason:
        reason = f"{_UNVERIFIED}: {_why_unverified(settings) or 'no more is known'}"
    return reason, next((remedy for pattern, remedy in _REMEDIES if reason and re.search(pattern, reason)), None)


def _why_unverified(settings: KafkaSettings) -> str | None:
    """What is wrong with a broker's certificate; the client library says only that something is wrong."""
    context = ssl.create_default_context(cafile=settings.security.ca_file)
    for place in settings.bootstrap_servers.split(","):
        host, _, port = place.strip().rpartition(":")
        host = host.strip("[]")
        try:
            with socket.create_connection((host, int(port)), _LOOK_S) as plain:
                context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            return str(error.verify_message).rstrip(".")
        except (OSError, ValueError):
            continue
    return None


def brief(error: KafkaError) -> str:
    """An error of the client library without its thread and broker names, and without OpenSSL's files and functions."""
    text = re.sub(r"^\S+: | \(after \d+ms in state \w+\)", "", str(error.str()))
    return re.sub(r"(\S+:\d+:\S+ )?error:\w+:SSL routines:\w*:", "", text)


class LastError:
    """Keeps the newest connection error, which tells more than the timeout that follows it."""

    def __init__(self) -> None:
        self.text: str | None = None

    def __call__(self, error: KafkaError) -> None:
        """The client's ``error_cb``."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # its names of local errors begin so
            self.text = brief(error)


def _admin(settings: KafkaSettings) -> tuple[AdminClient, LastError]:
    # Imported here: the agent needs no admin client.
    from confluent_kafka.admin import AdminClient

    errors = LastError()
    try:
        return AdminClient(client_config(settings) | {"error_cb": errors}), errors
    except KafkaException as error:
        raise refused(error) from None


def _topics(
    admin: AdminClient, settings: KafkaSettings, names: Iterable[str], errors: LastError, timeout_s: float
) -> dict[str, TopicDescription]:
    """The given topics that exist, with this client's rights on them."""
    from confluent_kafka import TopicCollection

    futures = admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=timeout_s
    )
    found = {}
    for name, future in futures.items():
        # Polling lets the library report its errors as they happen: the last one is not always the reason.
        while not future.done():
            admin.poll(0.05)
        try:
            found[name] = future.result()
        except KafkaException as error:
            if _code(error) == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise _forbidden(settings, f"Describe on topic {name}") from None
            if _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                admin.poll(0)  # lets the library report its last error
                raise failed(settings, timeout_s, error, errors) from None
    return found


def _who(settings: KafkaSettings) -> str:
    """The name of this client in messages: its user, if the settings have one."""
    return settings.security.username or "this client"


def _forbidden(settings: KafkaSettings, right: str) -> VacancyError:
    return VacancyError(
        f"Kafka at {settings.bootstrap_servers} does not allow {_who(settings)} {right}; "
        "grant it (docs/security.md), or correct who this is in kafka.security"
    )


def _take_requests(admin: AdminClient, names: set[str], timeout_s: float) -> bool:
    """Whether every partition answers: the metadata may name a leader before that broker knows that it leads."""
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, but not in its __all__

    topics = admin.list_topics(timeout=timeout_s).topics
    partitions = [TopicPartition(name, number) for name in names & topics.keys() for number in topics[name].partitions]
    newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # has no annotations
    futures = admin.list_offsets(dict.fromkeys(partitions, newest), request_timeout=timeout_s) if partitions else {}
    return names <= topics.keys() and all(future.exception() is None for future in futures.values())


def _code(error: KafkaException) -> int:
    code: int = error.args[0].code()
    return code


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str())


def refused(error: KafkaException) -> ConfigError:
    """The error for settings that the client library refuses."""
    return ConfigError(f"the Kafka client refuses the settings under kafka: {_reason(error)}")


def _create_command(settings: KafkaSettings, name: str, config: Mapping[str, str]) -> str:
    options = " ".join(f"--config {key}={value}" for key, value in config.items())
    return (
        f"kafka-topics.sh {_where(settings)} --create --topic {name} --partitions {settings.partitions} "
        f"--replication-factor {settings.replication_factor} {options}"
    )


def _alter_command(settings: KafkaSettings, name: str, key: str, value: str) -> str:
    what = f"--entity-type topics --entity-name {name} --add-config {key}={value}"
    return f"kafka-configs.sh {_where(settings)} --alter {what}"


def _where(settings: KafkaSettings) -> str:
    where = f"--bootstrap-server {settings.bootstrap_servers}"
    return where if settings.security.protocol == "PLAINTEXT" else f"{where} --command-config client.properties"
