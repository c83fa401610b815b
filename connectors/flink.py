"""The production edges of the dataflow: Kafka topics in, PostgreSQL tables and the dead-letter topic out.

Each statement comes from ``connectors/sql`` with its connector options filled in. They hold passwords: never log them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote, urlencode

from psycopg2.extensions import parse_dsn
from pydantic import SecretStr

from connectors.settings import KafkaSecurity, KafkaSettings
from schemas.errors import ConfigError
from schemas.units import milliseconds_of

MAX_DEAD_LETTER_REQUEST_BYTES = 2 * 1024 * 1024
"""What fits the usage topic fits the dead-letter topic with its headers."""


def production_edges(
    kafka: KafkaSettings,
    job_dsn: SecretStr,
    *,
    emit: timedelta,
    idle_timeout: timedelta,
    bounded: bool = False,
) -> list[str]:
    """CREATE TABLE statements for the five tables of the graph.

    Args:
        kafka: brokers and topics.
        job_dsn: the job's role in PostgreSQL.
        emit: how often a host's row may be rewritten: the sink gathers rows for this long and keeps a host's newest.
        idle_timeout: after this time a silent partition no longer holds back the watermark that Flink shows.
        bounded: read to the topics' present end and stop, for benchmarks and tests of the whole path.
    """
    source = kafka_client_options(kafka) | {
        "connector": "kafka",
        "properties.group.id": "vacancy",
        # The job's own checkpoint says where it stands; offsets that nobody reads are not committed.
        "properties.enable.auto.commit": "false",
        "properties.commit.offsets.on.checkpoint": "false",
        "scan.startup.mode": "earliest-offset",
        "scan.topic-partition-discovery.interval": "30 s",
        "scan.watermark.idle-timeout": f"{milliseconds_of(idle_timeout)} ms",
    }
    if bounded:
        source["scan.bounded.mode"] = "latest-offset"
    return [
        _statement("usage_topic", source | {"topic": kafka.usage_topic, "format": "raw"}),
        _statement(
            "inventory_topic",
            source
            | {
                "topic": kafka.inventory_topic,
                "key.format": "raw",
                "key.fields": "host_key",
                "value.format": "raw",
                "value.fields-include": "EXCEPT_KEY",
            },
        ),
        _statement("host", _jdbc_options(job_dsn, "vacancy.host", emit)),
        _statement("host_inventory", _jdbc_options(job_dsn, "vacancy.host_inventory", emit)),
        _statement(
            "dead_letters",
            kafka_client_options(kafka)
            | {
                "connector": "kafka",
                "topic": kafka.dead_letter_topic,
                "format": "raw",
                "properties.max.request.size": str(MAX_DEAD_LETTER_REQUEST_BYTES),
                "properties.compression.type": "lz4",
                # Nobody waits for them, and a request for each few costs the broker more than they do.
                "properties.linger.ms": "100",
                "sink.delivery-guarantee": "at-least-once",
            },
        ),
    ]


def with_clause(options: Mapping[str, str]) -> str:
    """Connector options as the inside of a WITH clause; the one place that quotes them."""

    def literal(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    return ",\n  ".join(f"{literal(key)} = {literal(value)}" for key, value in options.items())


def _statement(table: str, options: Mapping[str, str]) -> str:
    text = resources.files("connectors").joinpath("sql", f"{table}.sql").read_text(encoding="utf-8")
    return Template(text).substitute(options=f"\n  {with_clause(options)}\n")


def _jdbc_options(dsn: SecretStr, table: str, emit: timedelta) -> dict[str, str]:
    url, user, password = jdbc_url(dsn)
    return {
        "connector": "jdbc",
        "url": url,
        "table-name": table,
        "username": user,
        "password": password,
        # The sink gathers rows by key between two flushes, so that of a host only the newest is written each emit.
        "sink.buffer-flush.interval": f"{milliseconds_of(emit)} ms",
        "sink.buffer-flush.max-rows": "50000",
        # A retry sleeps inside the flush; past these the job restarts from its checkpoint, which waits more cleverly.
        "sink.max-retries": "2",
    }


def jdbc_url(dsn: SecretStr) -> tuple[str, str, str]:
    """A libpq connection string as pgjdbc wants it: URL, user and password (empty if there is none).

    Raises:
        ConfigError: it is no connection string, or names no user.
    """
    try:
        parts = parse_dsn(dsn.get_secret_value())
    except Exception:  # noqa: BLE001  # psycopg2's error would quote the string with its password
        raise ConfigError("postgres.job_dsn: not a libpq connection string") from None
    if "user" not in parts:
        raise ConfigError("postgres.job_dsn: names no user")
    parameters = {
        # Text for times, arrays and JSON is cast by the server.
        "stringtype": "unspecified",
        "reWriteBatchedInserts": "true",
        "ApplicationName": "vacancy-job",
        "tcpKeepAlive": "true",
    } | {name: parts[name] for name in ("sslmode", "sslrootcert", "sslcert", "sslkey") if name in parts}
    place = f"{parts.get('host', '127.0.0.1')}:{parts.get('port', '5432')}"
    url = f"jdbc:postgresql://{place}/{quote(parts.get('dbname', parts['user']), safe='')}?{urlencode(parameters)}"
    return url, parts["user"], parts.get("password", "")


def kafka_client_options(kafka: KafkaSettings) -> dict[str, str]:
    """The options with which a Kafka connector reaches the brokers, in Java's terms."""
    options = {"bootstrap.servers": kafka.bootstrap_servers, "security.protocol": kafka.security.protocol}
    options |= _sasl(kafka.security) | _tls(kafka.security)
    return {f"properties.{key}": value for key, value in options.items()}


def _sasl(security: KafkaSecurity) -> dict[str, str]:
    if security.mechanism is None:
        return {}
    # The connector's jar holds Kafka's classes under a name of its own.
    package = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security"
    module = f"{package}.plain.PlainLoginModule"
    if security.mechanism.startswith("SCRAM"):
        module = f"{package}.scram.ScramLoginModule"
    password = security.password.get_secret_value() if security.password else ""
    user, secret = (text.replace("\\", "\\\\").replace('"', '\\"') for text in (security.username or "", password))
    return {
        "sasl.mechanism": security.mechanism,
        "sasl.jaas.config": f'{module} required username="{user}" password="{secret}";',
    }


def _tls(security: KafkaSecurity) -> dict[str, str]:
    options: dict[str, str] = {}
    if security.ca_file is not None:
        options |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": _pem(security.ca_file)}
    if security.certificate_file is not None and security.key_file is not None:
        options |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": _pem(security.certificate_file),
            "ssl.keystore.key": _pem(security.key_file),
        }
    return options


def _pem(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(f"kafka.security: {file}: {error.strerror}") from None
