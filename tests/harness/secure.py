"""A broker and a database server as docs/security.md has them: its settings, its commands, its users.

The page's commands are read, not repeated: whoever changes one changes what the tests run. Those of Kafka's tools are
carried out by the client library, which spares a JVM for each; an option that is not known here is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not in its __all__
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from psycopg2.extensions import encrypt_password, make_dsn

from tests.harness.servers import reachable_directory
from tests.harness.tls import Authority, Identity
from vacancy.connectors.kafka.client import client_config, ensure_topics
from vacancy.connectors.settings import KafkaSecurity, KafkaSettings
from vacancy.jobs import ports
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.local.postgres_server import SUPERUSER, PostgresServer, _server_user

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
HOST = "localhost"
"""The host name in the servers' certificates, which 127.0.0.1 is not."""
OTHER_MECHANISM_USER = "other-mechanism"


def blocks(language: str, start: str = "") -> list[str]:
    """The page's fenced blocks of a language that start with some text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for block in found if block.startswith(start)]


class Broker:
    """A broker with two listeners as in the page, and a third one whose certificate has expired."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        self.passwords: dict[str, str] = {}
        self._authority = authority
        self._ports = {name: ports.free_port() for name in ("SASL_SSL", "SSL", "EXPIRED")}
        (page,) = blocks("properties")
        properties = dict(line.split("=", 1) for line in page.splitlines())
        # These are the server's own: it talks to itself without TLS, on this machine alone.
        del properties["listeners"], properties["inter.broker.listener.name"]
        self.server = KafkaServer(
            directory,
            0,
            ensure_jars("kafka"),
            listeners={name: f"{HOST}:{port}" for name, port in self._ports.items()},
            properties=properties
            | {
                "ssl.keystore.location": authority.issue("broker", HOST, common_name="broker").together(),
                "ssl.truststore.location": authority.file,
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,"
                "EXPIRED:SSL",
                "listener.name.expired.ssl.keystore.location": authority.issue("old", HOST, expired=True).together(),
                "super.users": f"{properties['super.users']};User:ANONYMOUS",
            },
        )
        self._admin_identity = authority.issue("admin", common_name="admin")

    def by_password(self, user: str, **changes: Any) -> KafkaSettings:
        """The settings of a user that the page makes, with changes to ``kafka.security``."""
        security = {
            "protocol": "SASL_SSL",
            "mechanism": "SCRAM-SHA-512",
            "username": user,
            "password": self.passwords[user],
            "ca_file": self._authority.file,
        }
        return self._settings("SASL_SSL", security | changes)

    def by_certificate(self, identity: Identity | None, listener: str = "SSL", **changes: Any) -> KafkaSettings:
        """The settings of whom a certificate names."""
        security: dict[str, Any] = {"protocol": "SSL", "ca_file": self._authority.file}
        if identity is not None:
            security |= {"certificate_file": identity.certificate, "key_file": identity.key}
        return self._settings(listener, security | changes)

    def place(self, listener: str, host: str = HOST) -> str:
        """Where a listener is."""
        return f"{host}:{self._ports[listener]}"

    def _settings(self, listener: str, security: dict[str, Any]) -> KafkaSettings:
        place = str(security.pop("bootstrap_servers", self.place(listener)))
        return KafkaSettings(bootstrap_servers=place, security=KafkaSecurity.model_validate(security), partitions=2)

    def prepare(self) -> None:
        """Makes the page's users and rights, and the topics, as the administrator."""
        settings = self.by_certificate(self._admin_identity)
        admin = AdminClient(client_config(settings))
        (page,) = blocks("sh", "ADMIN=")
        for words in shell_commands(page):
            if words[0] == "kafka-configs.sh":
                self._make_user(admin, words[1:])
            else:
                _grant(admin, words[1:])
        self._set_password(admin, OTHER_MECHANISM_USER, ScramMechanism.SCRAM_SHA_256)
        ensure_topics(settings)

    def _make_user(self, admin: AdminClient, words: list[str]) -> None:
        parser = _tool_parser()
        parser.add_argument("--alter", action="store_true", required=True)
        parser.add_argument("--entity-type", choices=["users"], required=True)
        parser.add_argument("--entity-name", required=True)
        parser.add_argument("--add-config-file", required=True)
        user = parser.parse_args(words).entity_name
        self._set_password(admin, user, ScramMechanism.SCRAM_SHA_512)

    def _set_password(self, admin: AdminClient, user: str, mechanism: ScramMechanism) -> None:
        # Quotes and a backslash, which JAAS would take for its own.
        self.passwords[user] = f"it's\"\\{secrets.token_urlsafe(12)}"
        upsertion = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(mechanism, 4096), self.passwords[user].encode()
        )
        for future in admin.alter_user_scram_credentials([upsertion]).values():
            future.result()


def shell_commands(text: str) -> Iterator[list[str]]:
    """The words of each command, with ``$ADMIN`` replaced."""
    admin = ""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("ADMIN="):
            admin = shlex.split(line)[0].removeprefix("ADMIN=")
        elif words := shlex.split(line.replace("$ADMIN", admin), comments=True):
            yield words


def _tool_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--bootstrap-server", required=True)
    parser.add_argument("--command-config", required=True)
    return parser


def _grant(admin: AdminClient, words: list[str]) -> None:
    parser = _tool_parser()
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    for option in ("--operation", "--topic", "--group"):
        parser.add_argument(option, action="append", default=[])
    options = parser.parse_args(words)
    resources = [(ResourceType.TOPIC, name) for name in options.topic]
    resources += [(ResourceType.GROUP, name) for name in options.group]
    literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    bindings = [
        AclBinding(kind, name, literal, options.allow_principal, "*", AclOperation[_as_constant(operation)], allow)
        for kind, name in resources
        for operation in options.operation
    ]
    for future in admin.create_acls(bindings).values():
        future.result()


def _as_constant(operation: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()


@contextmanager
def running_broker(authority: Authority) -> Iterator[Broker]:
    """A broker with the page's users, rights and topics."""
    directory = Path(tempfile.mkdtemp(prefix="vacancy-kafka-"))
    broker = Broker(authority, directory)
    try:
        broker.server.start()
        broker.prepare()
        yield broker
    finally:
        broker.server.stop()
        shutil.rmtree(directory)


def tls_binaries() -> Path | None:
    """A system's PostgreSQL, which has TLS as the wheel has not; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: float(file.parts[-3]))
    return found[-1].parent if found else None


class Database:
    """A server with the page's roles and database; ``job_by_password`` is one more login of the job's."""

    def __init__(self, server: PostgresServer, authority: Authority) -> None:
        self.server = server
        self.passwords: dict[str, str] = {}
        self._authority = authority
        self._cluster = (server.directory / "cluster").resolve()

    def dsn(self, user: str, identity: Identity | None = None, **changes: Any) -> str:
        """The connection string of a login, with changes (None: without that parameter)."""
        parts: dict[str, Any] = {
            "host": HOST,
            "port": self.server.port,
            "user": user,
            "password": self.passwords.get(user),
            "dbname": "vacancy",
            "sslmode": "verify-full",
            "sslrootcert": self._authority.file,
        }
        if identity is not None:
            parts |= {"password": None, "sslcert": identity.certificate, "sslkey": identity.key}
        return str(make_dsn(**{key: value for key, value in (parts | changes).items() if value}))

    def configure(self) -> None:
        """Writes the page's settings; the server has to start anew."""
        self.show(self._authority.issue("server", HOST))
        (settings,), (rules,) = blocks("", "ssl = on"), blocks("", "# TYPE")
        with (self._cluster / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(settings.replace("/etc/postgresql/tls", str(self._cluster)))
        (self._cluster / "pg_hba.conf").write_text(
            f"{rules}hostssl vacancy job_by_password all scram-sha-256\nhost all {SUPERUSER} all scram-sha-256\n",
            encoding="utf-8",
        )
        self._place(self._authority.file, "ca.pem")

    def show(self, identity: Identity) -> None:
        """Puts a certificate in the server's place, to be read when it starts or reloads."""
        self._place(identity.certificate, "server.pem")
        self._place(identity.key, "server.key")

    def _place(self, source: Path, name: str) -> None:
        target = self._cluster / name
        shutil.copyfile(source, target)
        target.chmod(0o600)
        if user := _server_user():
            os.chown(target, user.uid, user.gid)

    def prepare(self) -> None:
        """Makes the page's roles and database, and gives each login a password."""
        (page,) = blocks("sql")
        statements = [*page.split(";\n")[:-1], "CREATE ROLE job_by_password LOGIN IN ROLE vacancy_job"]
        with closing(psycopg2.connect(self.server.owner_dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            for statement in statements:
                cursor.execute(statement)
            for user in ("vacancy_owner", "scheduler", "reader", "job_by_password"):
                self.passwords[user] = secrets.token_urlsafe(12)
                encrypted = encrypt_password(self.passwords[user], user, connection, "scram-sha-256")
                cursor.execute(f"ALTER ROLE {user} PASSWORD %s", (encrypted,))


@contextmanager
def running_database(authority: Authority, binaries: Path) -> Iterator[Database]:
    """A server with TLS, and the page's roles and database; no tables."""
    directory = reachable_directory()
    server = PostgresServer(directory, binaries=binaries)
    try:
        server.start()
        database = Database(server, authority)
        database.configure()
        server.stop()
        server.start()
        database.prepare()
        yield database
    finally:
        server.stop()
        shutil.rmtree(directory)
