"""One database with a fleet, one `vacancy web` and one browser, which the tests of the page share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.process import Process, vacancy
from tests.harness.servers import running_postgres
from tests.harness.topic import own_topics
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs import ports
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.local.postgres_server import PostgresServer

ROOT = Path(__file__).parents[2]
HOSTS = 200
PAINTED_SECONDS = 30.0


class Stack(NamedTuple):
    """What runs, and where."""

    postgres: PostgresServer
    owner_dsn: str
    directory: Path
    address: str
    web: Process
    kafka: KafkaSettings

    def connect(self) -> Connection:
        """The owner's connection; each statement commits."""
        connection = psycopg2.connect(self.owner_dsn)
        connection.autocommit = True
        return connection


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, kafka_broker: KafkaServer) -> Iterator[Stack]:
    """A database server of its own, since a test kills it, 200 hosts, and the page's server with a reader's login."""
    directory = tmp_path_factory.mktemp("web")
    kafka = own_topics(kafka_broker.bootstrap_servers)
    ensure_topics(kafka)
    with running_postgres() as postgres:
        owner_dsn = postgres.owner_dsn.rpartition("/")[0] + "/vacancy"
        with closing(psycopg2.connect(postgres.owner_dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("CREATE DATABASE vacancy")
            migrate(SecretStr(owner_dsn))
            cursor.execute("CREATE ROLE page LOGIN PASSWORD 'page' IN ROLE vacancy_reader")
        with closing(psycopg2.connect(owner_dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            fleet = (ROOT / "bench" / "web_fleet.sql").read_text("utf-8")
            cursor.execute(fleet, {"hosts": HOSTS})
            # Those that are stale stay so, and the others fresh, for as long as the tests take.
            cursor.execute(
                "UPDATE vacancy.host SET observed_at = now() - interval '2 h' "
                " WHERE observed_at < now() - interval '5 min'"
            )
        (directory / "vacancy.toml").write_text(
            f'[postgres]\nowner_dsn = "{owner_dsn}"\nscheduler_dsn = "{owner_dsn}"\n'
            f'reader_dsn = "{postgres.dsn("page", "vacancy", "page")}"\n[scheduler]\nmax_age = "1 h"\n'
            f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\nusage_topic = "{kafka.usage_topic}"\n'
            f'dead_letter_topic = "{kafka.dead_letter_topic}"\n',
            encoding="utf-8",
        )
        port = ports.free_port()
        command = vacancy("web", "--listen", f"127.0.0.1:{port}")
        with Process(command, directory, directory / "web.log") as web:
            web.wait_for("the fleet page is at")
            yield Stack(postgres, owner_dsn, directory, f"http://127.0.0.1:{port}", web, kafka)
            web.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless; as root it has no sandbox of its own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


class Sight:
    """A page in the browser, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", self._asked)
        page.on("console", self._said)

    def _asked(self, dialog: Dialog) -> None:
        self.faults.append(dialog.message)
        dialog.dismiss()

    def _said(self, message: Any) -> None:
        # What breaks the policy of the page is told there. A server that is away is told as well, and is no fault.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(f"() => ({script})")

    def wait(self, script: str, seconds: float = PAINTED_SECONDS) -> Any:
        """Waits until an expression in the page is true; its value."""
        wait_until(lambda: self.ask(script), seconds, lambda: f"not in the page: {script}; {self.faults}")
        return self.ask(script)

    def open(self, address: str) -> Sight:
        """Opens an address and waits until the map is painted and the hosts have their names."""
        self.page.goto(address)
        self.wait("window.vacancy?.perf.painted > 0 && vacancy.names.length > 0")
        return self


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What most tests' pages share: the dark theme, and files of the page that are there already."""
    shared = browser.new_context(viewport={"width": 1400, "height": 860}, color_scheme="dark")
    shared.set_default_timeout(PAINTED_SECONDS * 1000)
    yield shared
    shared.close()


@pytest.fixture
def sight(context: BrowserContext, stack: Stack) -> Iterator[Sight]:
    """A page of its own; nothing went wrong in it."""
    found = Sight(context.new_page())
    try:
        found.open(stack.address)
        yield found
    finally:
        found.page.close()
    assert found.faults == []
