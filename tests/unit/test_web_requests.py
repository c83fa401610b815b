"""What the fleet page makes of requests, and to whom it answers."""

from __future__ import annotations

import ast
import asyncio
import shlex
import ssl
from contextlib import closing
from datetime import timedelta
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.harness.tls import Authority
from vacancy import Request
from vacancy.connectors.settings import PostgresSettings
from vacancy.jobs import ports
from vacancy.jobs.commands.claim import command as claim_command
from vacancy.jobs.commands.request_options import parse_request
from vacancy.jobs.settings import Settings, WebSettings
from vacancy.jobs.web.fits import command_line, python_call
from vacancy.jobs.web.guard import Guard
from vacancy.jobs.web.server import require_safe, serving
from vacancy.schemas.errors import ConfigError

NAMES = st.text("abcXYZ_ '\"$=;\u20ac", min_size=1, max_size=8).filter(lambda text: not text.startswith("-"))
AMOUNTS = st.integers(1, 10_000)
REQUESTS: st.SearchStrategy[Request] = st.builds(
    Request,
    vcpus=st.integers(0, 100),
    memory_mb=st.integers(0, 10_000),
    disk_gb=st.integers(0, 100),
    required=st.lists(NAMES, max_size=2).map(tuple),
    any_of=st.lists(st.lists(st.sampled_from(["A", "B c"]), min_size=1, max_size=2).map(tuple), max_size=2).map(tuple),
    zone=st.none() | NAMES,
    near=st.none() | NAMES,
    include=st.lists(NAMES, max_size=1).map(tuple),
    resources=st.dictionaries(st.sampled_from(["CUSTOM_A", "SRIOV"]), AMOUNTS, max_size=2),
    numa=st.fixed_dictionaries({}, optional={"cpus": AMOUNTS, "pages": st.dictionaries(AMOUNTS, AMOUNTS, max_size=2)}),
    pci=st.lists(
        st.fixed_dictionaries(
            {"vendor_id": st.just("10de")},
            optional={
                "count": AMOUNTS,
                "same_cell": st.booleans(),
                "numa_node": st.integers(0, 3),
                "tags": st.just({"net": "a"}),
            },
        ),
        max_size=2,
    ),
    max_cpu_steal=st.none() | st.floats(0, 1),
    min_memory_mb_available=st.integers(0, 100),
    strategy=st.sampled_from([None, "pack", "random"]),
    max_age=st.none()
    | st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=1)).map(
        lambda age: age - age % timedelta(milliseconds=1)
    ),
)


@given(REQUESTS)
def test_the_command_line_and_the_python_ask_for_the_same(request: Request) -> None:
    words = shlex.split(command_line(request))
    assert words[:2] == ["vacancy", "claim"]
    context = claim_command.make_context("claim", words[2:])
    assert isinstance(context, click.Context)
    flags = {name: value for name, value in context.params.items() if name in _REQUEST_FLAGS}
    assert parse_request(**flags) == request
    (call,) = (
        node for node in ast.walk(ast.parse(python_call(request))) if isinstance(node, ast.Call) and _is_request(node)
    )
    given_values: dict[str, Any] = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    assert Request(**given_values) == request


_REQUEST_FLAGS = {
    parameter.name
    for parameter in claim_command.params
    if parameter.name not in ("config", "data_dir", "count", "consumers", "move", "as_json")
}


def _is_request(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "Request"


def settings(**web: Any) -> Settings:
    return Settings(file={}, flags={}).model_copy(update={"web": WebSettings(**web)})  # type: ignore[call-arg]  # for the sources


@pytest.mark.parametrize(
    ("web", "expected"),
    [
        ({}, ("127.0.0.1", 9770)),
        ({"listen": "[::1]:0"}, ("::1", 0)),
        ({"listen": "127.0.0.1:1", "allow_hosts": ["fleet.example.org"]}, ("127.0.0.1", 1)),
        ({"listen": "0.0.0.0:1", "token": "x" * 16, "allow_hosts": ["a"]}, ("0.0.0.0", 1)),  # noqa: S104  # an example
        ({"listen": "9770"}, "address:port"),
        ({"listen": "0.0.0.0:1"}, "set web.token"),
        ({"listen": "fleet.example.org:1"}, "set web.token"),
        ({"listen": "0.0.0.0:1", "token": "x" * 16}, "--allow-host"),
        ({"key_file": "/k"}, "need each other"),
    ],
)
def test_it_listens_for_others_only_with_a_token_and_a_name(web: dict[str, Any], expected: Any) -> None:
    if isinstance(expected, tuple):
        assert require_safe(settings(**web)) == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            require_safe(settings(**web))


TOKEN = "a-token-of-16-chars"


def answer(
    path: str = "/", query: str = "", method: str = "GET", token: str | None = TOKEN, **headers: str
) -> tuple[int, dict[str, str]]:
    """Status and headers of what the guard lets through or answers itself; 299: it let the request through."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in ({"host": "fleet.example.org"} | headers).items()
    ]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw}
    asyncio.run(Guard(app, ("Fleet.example.org",), token, secure=True)(scope, receive, send))
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert found["content-security-policy"].startswith("default-src 'none'")
    return int(sent[0]["status"]), found


def test_the_token_opens_the_page_and_moves_into_a_cookie() -> None:
    assert answer()[0] == 401
    assert answer(query="token=wrong")[0] == 401
    assert answer(path="/api/frame", query=f"token={TOKEN}")[0] == 401  # in the address of the page alone
    status, headers = answer(query=f"view=table&token={TOKEN}")
    assert (status, headers["location"]) == (303, "/?view=table")
    cookie = headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Secure", "Path=/"))
    assert answer(cookie=cookie.partition(";")[0])[0] == 299
    assert answer(cookie="vacancy_token=\u00e9")[0] == 401
    assert answer(authorization=f"Bearer {TOKEN}")[0] == 299
    assert answer(authorization=f"bearer {TOKEN}x")[0] == 401
    assert answer(path="/healthz")[0] == 299
    assert answer(token=None)[0] == 299


@pytest.mark.parametrize(
    "host", ["evil.example.org", "", "fleet.example.org.evil", "127.0.0.1.nip.io", "[::2]:80", "169.254.0.1"]
)
def test_a_name_that_is_not_its_own_is_refused(host: str) -> None:
    assert answer(token=None, host=host)[0] == 421


@pytest.mark.parametrize(
    "host", ["fleet.example.org", "FLEET.example.org:9770", "127.0.0.1:1", "localhost", "[::1]:9770"]
)
def test_its_own_names_are_answered(host: str) -> None:
    assert answer(token=None, host=host)[0] == 299


def test_it_answers_get_alone() -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY"):
        assert answer(token=None, method=method)[0] == 405
    assert answer(token=None, method="HEAD")[0] == 299


def test_a_token_is_secret() -> None:
    assert TOKEN not in repr(settings(token=SecretStr(TOKEN)))


def test_it_speaks_tls_and_serves_while_the_database_is_away(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = authority.issue("page", "localhost", "127.0.0.1")
    web = WebSettings(
        listen=f"127.0.0.1:{ports.free_port()}",
        token=SecretStr("s3cret-of-the-page"),
        certificate_file=identity.certificate,
        key_file=identity.key,
    )
    nobody = PostgresSettings(reader_dsn=SecretStr(f"postgresql://page@127.0.0.1:{ports.free_port()}/vacancy"))
    settings = Settings().model_copy(update={"web": web, "postgres": nobody})
    trusted = ssl.create_default_context(cafile=authority.file)
    with serving(settings) as address:
        assert address.startswith("https://127.0.0.1:")

        def ask(path: str, **headers: str) -> tuple[int, str]:
            place = address.removeprefix("https://").rstrip("/")
            with closing(HTTPSConnection(place, timeout=20, context=trusted)) as connection:
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                cookie = answer.headers.get("set-cookie", "")
                return answer.status, cookie or answer.read().decode()

        assert ask("/healthz") == (200, "ok\n")
        assert ask("/metrics")[0] == 401
        status, cookie = ask("/?token=s3cret-of-the-page")
        assert status == 303
        assert "Secure" in cookie
        metrics = ask("/metrics", Authorization="Bearer s3cret-of-the-page")[1]
        assert "vacancy_web_hosts 0.0" in metrics
        assert ask("/", Cookie="vacancy_token=s3cret-of-the-page")[0] == 200
