"""The production edges of the dataflow: Kafka topics in, PostgreSQL tables and the dead-letter topic out.

Each statement comes from the folder ``sql`` with its connector options filled in. They hold passwords: never log them.

What always holds: a secret stands only in options that Flink's and Kafka's messages hide (``password`` and
``jaas.config``); SHOW CREATE TABLE does not, so the graph drops these tables as soon as it has read them. A private key
stands in none. What is a file in the settings is a path in the options, read by the clients where they run: on the job
manager and the task managers.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import timedelta
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote, urlencode

from psycopg2.extensions import parse_dsn
from pydantic import SecretStr

from vacancy.connectors.settings import KafkaSecurity, KafkaSettings
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.units import milliseconds_of
from vacancy.schemas.usage import HOST_COLUMNS

MAX_DEAD_LETTER_REQUEST_BYTES = 2 * 1024 * 1024
"""What fits the usage topic fits with its headers; of what is longer once it is unpacked, the beginning is sent."""
_FETCH_BYTES = 256 * 1024
"""What a fetch waits for, if not for long: a thousand events and more."""
_SHADED = "org.apache.flink.kafka.shaded.org.apache.kafka.common"
"""Kafka's package under the name that it has in the connector's jar."""
_EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")
"""The object identifier of an elliptic curve's key, as DER."""
_JDBC_PARAMETERS = {
    "channel_binding": "channelBinding",
    "connect_timeout": "connectTimeout",
    "gssencmode": "gssEncMode",
    "options": "options",
    "require_auth": "requireAuth",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
    "sslmode": "sslmode",
    "sslnegotiation": "sslNegotiation",
    "sslrootcert": "sslrootcert",
}
"""libpq's parameters that pgjdbc has as well, with the same values, and its names for them."""
_JDBC_PLACE = frozenset(
    {"host", "hostaddr", "port", "dbname", "user", "password", "target_session_attrs", "load_balance_hosts"}
)
_TARGETS = {"any": "any", "read-write": "primary", "primary": "primary"}
"""The kind of server that libpq's target_session_attrs asks for, in pgjdbc's words."""
_JDBC_LEFT_OUT = frozenset(
    {
        "application_name",
        "client_encoding",
        "fallback_application_name",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    }
)
"""Nothing is less safe without these. What is neither here nor above is refused, not passed over."""


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
        emit: how often a host's row may be rewritten.
        idle_timeout: after this time a silent partition no longer holds back the watermark that Flink shows.
        bounded: read to the topics' present end and stop, for benchmarks and tests of the whole path.
    """
    source = kafka_client_options(kafka) | {
        "connector": "kafka",
        "properties.group.id": "vacancy",
        # The job's own checkpoint says where it stands; offsets that nobody reads are not committed.
        "properties.enable.auto.commit": "false",
        "properties.commit.offsets.on.checkpoint": "false",
        # What a transaction has not committed is not said yet, and what it has aborted never was.
        "properties.isolation.level": "read_committed",
        "key.format": "raw",
        "key.fields": "host_key",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
        "scan.startup.mode": "earliest-offset",
        "scan.topic-partition-discovery.interval": "30 s",
        "scan.watermark.idle-timeout": f"{milliseconds_of(idle_timeout)} ms",
        # Many events at once cost less each; they wait no longer than the sink's next tick is away.
        "properties.fetch.min.bytes": str(_FETCH_BYTES),
        "properties.fetch.max.wait.ms": str(milliseconds_of(emit) // 10),
        "properties.max.poll.records": "5000",
    }
    if bounded:
        source["scan.bounded.mode"] = "latest-offset"
    dead_letters = kafka_client_options(kafka) | {
        "topic": kafka.dead_letter_topic,
        "properties.max.request.size": str(MAX_DEAD_LETTER_REQUEST_BYTES),
        "properties.compression.type": "lz4",
    }
    refused = {f"dead-letters.{name}": value for name, value in dead_letters.items()}
    return [
        _statement("usage_topic", source | {"topic": kafka.usage_topic}),
        _statement("inventory_topic", source | {"topic": kafka.inventory_topic}),
        _statement("host", _postgres_options(job_dsn, "vacancy.host", emit) | refused),
        _statement("host_inventory", _postgres_options(job_dsn, "vacancy.host_inventory", emit) | refused),
        _statement("dead_letters", dead_letters | {"connector": "dead-letters"}),
    ]


def with_clause(options: Mapping[str, str]) -> str:
    """Connector options as the inside of a WITH clause; the one place that quotes them."""

    def literal(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    return ",\n  ".join(f"{literal(key)} = {literal(value)}" for key, value in options.items())


def _statement(table: str, options: Mapping[str, str]) -> str:
    text = resources.files("vacancy.connectors.flink").joinpath("sql", f"{table}.sql").read_text(encoding="utf-8")
    return Template(text).substitute(
        options=f"\n  {with_clause(options)}\n",
        topic=options.get("topic"),
        host_columns=",\n  ".join(f"{name} {kind}" for name, kind in HOST_COLUMNS.items()),
    )


def _postgres_options(dsn: SecretStr, table: str, emit: timedelta) -> dict[str, str]:
    url, user, password = jdbc_url(dsn)
    return {
        "connector": "postgres",
        "url": url,
        "table-name": table,
        "username": user,
        "password": password,
        "interval": f"{milliseconds_of(emit)} ms",
    }


def jdbc_url(dsn: SecretStr) -> tuple[str, str, str]:
    """A libpq connection string as pgjdbc wants it: URL, user and password (empty if there is none).

    Raises:
        ConfigError: it is no connection string, names no user, or holds what pgjdbc cannot do; quotes paths alone.
    """
    try:
        parts = parse_dsn(dsn.get_secret_value())
    except Exception:  # noqa: BLE001  # psycopg2's error would quote the string with its password
        raise ConfigError("postgres.job_dsn: not a libpq connection string") from None
    if "user" not in parts:
        raise ConfigError("postgres.job_dsn: names no user")
    if unknown := sorted(parts.keys() - _JDBC_PARAMETERS.keys() - _JDBC_PLACE - _JDBC_LEFT_OUT):
        raise ConfigError(
            f"postgres.job_dsn: the job's driver (pgjdbc) knows no {', '.join(unknown)}; "
            "leave it out, or set what does the same on the server"
        )
    parameters = {
        "ApplicationName": "vacancy-job",
        "tcpKeepAlive": "true",
        # A network that is cut tells nobody. What waits for an answer gives up after so many seconds; the server ends
        # the statement earlier (Session.java), and drops a client that is gone, with the rows that it has locked.
        "socketTimeout": "10",
        # Of each server, and of all of them with their names.
        "connectTimeout": "5",
        "loginTimeout": "20",
    } | {_JDBC_PARAMETERS[name]: value for name, value in parts.items() if name in _JDBC_PARAMETERS}
    for name in ("sslrootcert", "sslcert", "sslkey"):
        if name in parameters:
            parameters[name] = str(Path(parameters[name]).absolute())
    if parts.get("sslrootcert") == "system":
        raise ConfigError(
            "postgres.job_dsn: the job's driver (pgjdbc) knows no sslrootcert=system; name the system's file of "
            "authorities, such as /etc/ssl/certs/ca-certificates.crt"
        )
    if "sslkey" in parts:
        parameters["pemKeyAlgorithm"] = _key_algorithm("postgres.job_dsn: sslkey", Path(parts["sslkey"]))
    places = _jdbc_places(parts)
    wanted = parts.get("target_session_attrs", "read-write" if "," in places else "any")
    if wanted not in _TARGETS:
        raise ConfigError(
            f"postgres.job_dsn: the job writes, and target_session_attrs={wanted} asks for a server that takes no "
            "writes; use read-write"
        )
    parameters["targetServerType"] = _TARGETS[wanted]
    # What was a standby 10 s ago may be the primary now.
    parameters["hostRecheckSeconds"] = "0"
    if parts.get("load_balance_hosts") == "random":
        parameters["loadBalanceHosts"] = "true"
    url = f"jdbc:postgresql://{places}/{quote(parts.get('dbname', parts['user']), safe='')}"
    return f"{url}?{urlencode(parameters)}", parts["user"], parts.get("password", "")


def _jdbc_places(parts: Mapping[str, str]) -> str:
    """The server, or the servers to be tried in turn: host:port, ..."""
    hosts = (parts.get("host") or parts.get("hostaddr") or "127.0.0.1").split(",")
    if any(host.startswith(("/", "@")) for host in hosts):
        raise ConfigError("postgres.job_dsn: names a Unix socket; the job's driver (pgjdbc) needs a host name")
    ports = [port or "5432" for port in parts.get("port", "").split(",")]
    if len(ports) not in (1, len(hosts)):
        raise ConfigError(
            f"postgres.job_dsn: {len(ports)} ports for {len(hosts)} hosts; name a port for all, or one for each"
        )
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return ",".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)
    )


def kafka_client_options(kafka: KafkaSettings) -> dict[str, str]:
    """The options with which a Kafka connector reaches the brokers, in Java's terms."""
    options = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security.protocol,
        # A broker that is silent holds up its partitions for as long as a request to it waits; the default is 30 s.
        "request.timeout.ms": "5000",
        "socket.connection.setup.timeout.ms": "3000",
        "socket.connection.setup.timeout.max.ms": "5000",
    }
    options |= _sasl(kafka.security) | _tls(kafka.security)
    return {f"properties.{key}": value for key, value in options.items()}


def _sasl(security: KafkaSecurity) -> dict[str, str]:
    if security.mechanism is None:
        return {}
    module = f"{_SHADED}.security.plain.PlainLoginModule"
    if security.mechanism.startswith("SCRAM"):
        module = f"{_SHADED}.security.scram.ScramLoginModule"
    password = security.password.get_secret_value() if security.password else ""
    user, secret = (text.replace("\\", "\\\\").replace('"', '\\"') for text in (security.username or "", password))
    return {
        "sasl.mechanism": security.mechanism,
        "sasl.jaas.config": f'{module} required username="{user}" password="{secret}";',
    }


def _tls(security: KafkaSecurity) -> dict[str, str]:
    options: dict[str, str] = {}
    if security.ca_file is not None:
        options |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(security.ca_file.absolute())}
    if security.certificate_file is not None and security.key_file is not None:
        if security.key_password is not None:
            raise ConfigError(
                "kafka.security.key_password: the job's Kafka client (Java) cannot decrypt keys as they are encrypted "
                "today (PBES2); give the job a key_file that is not encrypted and that others cannot read"
            )
        _key_algorithm("kafka.security.key_file", security.key_file)
        options |= {
            # Kafka's own way to read a value from a file: the key itself would stand in the job graph in the clear.
            "config.providers": "directory",
            "config.providers.directory.class": f"{_SHADED}.config.provider.DirectoryConfigProvider",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": _content(security.certificate_file),
            "ssl.keystore.key": _content(security.key_file),
        }
    return options


def _content(file: Path) -> str:
    """What Kafka replaces by the content of a file."""
    path = file.absolute()
    if re.search("[:{}]", str(path)):
        raise ConfigError(f"kafka.security: {path}: the Kafka client cannot read a path with : or braces; rename it")
    return f"${{directory:{path.parent}:{path.name}}}"


def _key_algorithm(setting: str, file: Path) -> str:
    """The algorithm of a private key, by Java's name, of which the file is checked to be one that Java reads.

    Raises:
        ConfigError: it cannot be read, or is not in PKCS #8.
    """
    try:
        text = file.read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"{setting}: {file}: {error.strerror}") from None
    found = re.search("-----BEGIN PRIVATE KEY-----(.*?)-----END PRIVATE KEY-----", text, re.DOTALL)
    if found is None:
        raise ConfigError(
            f"{setting}: {file} holds no PRIVATE KEY in PKCS #8, not encrypted, which Java wants; "
            f"convert it: openssl pkcs8 -topk8 -nocrypt -in {file} -out NEW"
        )
    try:
        key = base64.b64decode(found[1])
    except binascii.Error:
        raise ConfigError(f"{setting}: {file} is not PEM; make it anew") from None
    return "EC" if _EC_PUBLIC_KEY in key else "RSA"
