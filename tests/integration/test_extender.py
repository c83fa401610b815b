"""The scheduler extender: requests as kube-scheduler sends them, recorded from the published types, and our answers.

``tests/integration/extender`` has both. The requests were written, and the answers read back without an unknown field,
by a program over k8s.io/kube-scheduler v0.34.1 (its README has it). VACANCY_REGENERATE_GOLDENS=1 rewrites the answers.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.process import END_SECONDS, Process, vacancy
from tests.harness.rows import query, upsert_inventory, upsert_usage
from tests.harness.waiting import PATIENCE, wait_until
from vacancy.connectors.kubernetes import server as http_server
from vacancy.connectors.kubernetes.extender import Extender, node_names
from vacancy.connectors.kubernetes.nodes import Nodes
from vacancy.connectors.kubernetes.requests import pod_needs
from vacancy.connectors.kubernetes.server import serve
from vacancy.jobs.ports import free_port

RECORDED = Path(__file__).with_name("extender")
INVENTORIES = '{"VCPU": {"total": 64}, "MEMORY_MB": {"total": 262144}}'
CASES = [("filter", "names"), ("filter", "nodes"), ("prioritize", "names")]


@pytest.fixture
def url(owner: Connection, database: str) -> Iterator[str]:
    """An extender over a table of three of the four nodes: an idle one, a busy one, one whose CPU time is stolen."""
    figures: dict[str, dict[str, Any]] = {
        "node-1": {"cpu_utilization": 0.1},
        "node-2": {"cpu_utilization": 0.8},
        "node-3": {"cpu_utilization": 0.1, "cpu_steal": 0.3},
    }
    [(now,)] = query(owner, "SELECT now()")
    for name, values in figures.items():
        upsert_inventory(owner, host_id=f"id-of-{name}", name=name, inventories=INVENTORIES, observed_at=now)
        upsert_usage(
            owner,
            host_id=f"id-of-{name}",
            observed_at=now,
            memory_mb_available=262_144,
            recent_consumers="{}",
            **values,
        )
    nodes = Nodes(SecretStr(database), timedelta(seconds=5), timedelta(minutes=5))
    port = free_port()
    with closing(nodes), serve(Extender(nodes), "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def port(url: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The extender's, with limits that a test can reach."""
    monkeypatch.setattr(http_server, "REQUEST_S", 1.0)
    monkeypatch.setattr(http_server, "MAX_BODY_BYTES", 2**20)
    monkeypatch.setattr(http_server, "MAX_BODIES_BYTES", 2**20 + 2**19)
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 16)
    return int(url.rpartition(":")[2])


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text(encoding="utf-8"))


def post(url: str, body: bytes) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  # http, to ourselves
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # likewise
        return json.loads(answer.read())


@pytest.mark.parametrize(("verb", "given"), CASES)
def test_recorded_requests_get_the_recorded_answers(url: str, verb: str, given: str) -> None:
    answer = post(f"{url}/{verb}", (RECORDED / f"{given}.request.json").read_bytes())
    file = RECORDED / (f"{verb}.response.json" if verb == "prioritize" else f"{verb}-{given}.response.json")
    if os.environ.get("VACANCY_REGENERATE_GOLDENS"):
        file.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    assert answer == recorded(file.name)


def test_the_answers_are_what_the_table_says(url: str) -> None:
    filtered = recorded("filter-names.response.json")
    assert filtered["NodeNames"] == ["node-1", "node-2", "node-4"]  # the table does not know node-4
    assert filtered["FailedNodes"] == {"node-3": "vacancy: cpu_steal is beyond its limit"}
    assert [node["metadata"]["name"] for node in recorded("filter-nodes.response.json")["Nodes"]["items"]] == [
        "node-1",
        "node-2",
        "node-4",
    ]
    scores = {one["Host"]: one["Score"] for one in recorded("prioritize.response.json")}
    assert scores == {"node-1": 8, "node-2": 1, "node-3": 0, "node-4": 1}
    del url


def test_what_is_no_request_is_refused_and_the_next_one_answered(url: str) -> None:
    for body in (b"{}", b"no JSON", b'{"Pod": {"spec": {}}, "Nodes": null}'):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(f"{url}/filter", body)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        post(f"{url}/bind", b"{}")
    assert post(f"{url}/filter", (RECORDED / "names.request.json").read_bytes())["Error"] == ""


def test_without_the_table_all_nodes_pass_and_rank_the_same() -> None:
    nodes = Nodes(SecretStr(f"postgresql://127.0.0.1:{free_port()}/none"), timedelta(seconds=2), timedelta(minutes=1))
    extender, arguments = Extender(nodes), recorded("names.request.json")
    assert extender.filter(arguments)["NodeNames"] == node_names(arguments)
    assert {one["Score"] for one in extender.prioritize(arguments)} == {0}


def test_a_pod_needs_its_containers_together_or_its_greatest_init_container() -> None:
    needs = pod_needs(recorded("names.request.json"))
    assert needs.vcpus == 4
    assert needs.memory_mb == pytest.approx(2048 + 500e6 / 2**20)


def test_a_node_refuses_a_pod_that_is_more_than_its_machine(owner: Connection, url: str) -> None:
    small = '{"VCPU": {"total": 4}, "MEMORY_MB": {"total": 4096}}'
    [(now,)] = query(owner, "SELECT now()")
    upsert_inventory(owner, host_id="small", name="small", inventories=small, observed_at=now)
    upsert_usage(owner, host_id="small", memory_mb_available=4096, recent_consumers="{}", observed_at=now)
    main, sidecar = ({"name": name, "resources": {"requests": {"memory": "3Gi"}}} for name in ("main", "sidecar"))

    def passed(spec: Any) -> Any:
        arguments = {"Pod": {"spec": spec}, "NodeNames": ["small"]}
        return post(f"{url}/filter", json.dumps(arguments).encode())["NodeNames"]

    assert passed({"containers": [main]}) == ["small"]
    assert passed({"containers": [main], "initContainers": [sidecar]}) == ["small"]  # it has ended when main starts
    assert passed({"containers": [main], "initContainers": [sidecar | {"restartPolicy": "Always"}]}) == []
    assert passed({"containers": [main], "overhead": {"memory": "1025Mi"}}) == []
    assert passed({"containers": [main], "resources": {"requests": {"memory": "6Gi"}}}) == []
    assert passed({"containers": [{"name": "cpus", "resources": {"requests": {"cpu": "4001m"}}}]}) == []


NO_ARGUMENTS = (
    "[]",
    "null",
    "NaN",
    "[" * 100_000,
    '{"Pod": {"spec": {}}, "NodeNames": "node-1"}',
    '{"Pod": {"spec": {}}, "NodeNames": ["\\u0000"]}',
    '{"Pod": {"spec": {}}, "NodeNames": ["\\ud800"]}',
    '{"Pod": {"spec": {}}, "NodeNames": [1]}',
    '{"Pod": {"spec": {}}, "Nodes": {"items": [{"metadata": {"name": "node-1"}, "weight": NaN}]}}',
    '{"Pod": {"spec": {"containers": [{"resources": {"requests": {"cpu": "1x"}}}]}}, "NodeNames": []}',
    '{"Pod": {"spec": {"containers": [{"resources": {"requests": {"cpu": "\\ud800\\u009b"}}}]}}, "NodeNames": []}',
    f'{{"Pod": {{"spec": {{}}}}, "NodeNames": [], "number": {"9" * 5000}}}',
)


def test_arguments_that_make_no_sense_are_the_clients_fault(url: str) -> None:
    for arguments in NO_ARGUMENTS:
        for verb in ("filter", "prioritize"):
            with pytest.raises(urllib.error.HTTPError, match="400") as refused:
                post(f"{url}/{verb}", arguments.encode())
            answer = refused.value.read()
            assert answer.isascii(), arguments
            assert "ExtenderArgs" in json.loads(answer)["Error"], arguments


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # http, to ourselves
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_readiness_and_metrics(url: str) -> None:
    body = (RECORDED / "names.request.json").read_bytes()
    post(f"{url}/filter", body)
    with pytest.raises(urllib.error.HTTPError):
        post(f"{url}/prioritize", b"[]")
    assert get(f"{url}/healthz") == (200, "ok\n")
    assert get(f"{url}/readyz") == (200, "ok\n")
    metrics = dict(
        line.rsplit(" ", 1) for line in get(f"{url}/metrics")[1].splitlines() if line.startswith("vacancy_extender")
    )
    assert metrics['vacancy_extender_requests_total{status="200",verb="filter"}'] == "1.0"
    assert metrics['vacancy_extender_requests_total{status="400",verb="prioritize"}'] == "1.0"
    assert metrics['vacancy_extender_request_duration_seconds_count{verb="filter"}'] == "1.0"
    assert metrics["vacancy_extender_unread_total"] == "0.0"


def test_unknown_paths_and_methods(url: str) -> None:
    assert get(f"{url}/bind")[0] == 404
    assert get(f"{url}/filter")[0] == 405
    with pytest.raises(urllib.error.HTTPError, match="405"):
        post(f"{url}/healthz", b"{}")


def test_a_locked_table_lets_all_nodes_pass_in_time(url: str, owner: Connection, database: str) -> None:
    names = recorded("names.request.json")["NodeNames"]
    body = (RECORDED / "names.request.json").read_bytes()
    with closing(psycopg2.connect(database)) as locking, locking.cursor() as cursor:
        cursor.execute("LOCK TABLE vacancy.host")
        with ThreadPoolExecutor(40) as callers:
            answers = [callers.submit(post, f"{url}/filter", body) for _ in range(120)]
            ready = callers.submit(get, f"{url}/readyz")
            assert get(f"{url}/healthz") == (200, "ok\n")
            assert all(answer.result()["NodeNames"] == names for answer in answers)
            assert ready.result()[0] == 503
        assert "vacancy_extender_unread_total 120.0" in get(f"{url}/metrics")[1]
        wait_until(
            lambda: query(owner, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                          " AND application_name = 'vacancy extender' AND wait_event_type = 'Lock'") == [(0,)],
            10, "no session of the extender waits for the lock any more",
        )  # fmt: skip
    assert post(f"{url}/filter", body)["NodeNames"] == ["node-1", "node-2", "node-4"]
    assert get(f"{url}/readyz")[0] == 200


def answered(connection: socket.socket) -> bytes:
    """All that is sent until the end of the connection."""
    answer = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            answer += part
    return answer


def opened(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def test_connections_that_keep_waiting_end(port: int) -> None:
    head = b"POST /filter HTTP/1.1\r\nHost: x\r\n"
    beginnings = (
        b"",
        b"POST",
        head,
        head + b"Content-Length: 100\r\n\r\n{",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    )
    with ExitStack() as together:
        waiting = [together.enter_context(opened(port)) for _ in beginnings]
        for connection, beginning in zip(waiting, beginnings, strict=True):
            connection.sendall(beginning)
        for connection, beginning in zip(waiting, beginnings, strict=True):
            assert answered(connection) == b"", beginning
    # Each byte in time, but all of them not: it is the request that has a limit.
    with opened(port) as connection, suppress(ConnectionError):
        began = time.monotonic()
        connection.settimeout(0.05)
        connection.sendall(head)
        while time.monotonic() - began < 10:
            connection.sendall(b"X-Slow: yes\r\n")
            try:
                assert connection.recv(1) == b""
                break
            except TimeoutError:
                pass
        assert time.monotonic() - began < 8


def test_slow_clients_do_not_keep_others_out(port: int, url: str) -> None:
    with ExitStack() as slow:
        for _ in range(200):
            slow.enter_context(opened(port)).sendall(
                b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
            )
        assert get(f"{url}/healthz") == (200, "ok\n")
        assert post(f"{url}/filter", (RECORDED / "names.request.json").read_bytes())["Error"] == ""


def test_a_client_that_does_not_read_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MAX_BODY_BYTES", 2**25)
    monkeypatch.setattr(http_server, "MAX_BODIES_BYTES", 2**25)
    nodes = {"items": [{"metadata": {"name": f"n{number}"}, "padding": "x" * 10_000} for number in range(1000)]}
    body = json.dumps({"Pod": {"spec": {}}, "Nodes": nodes}).encode()
    head = b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head + body)
        wait_until(lambda: open_connections(port) == 0, 10, "the server has ended the connection")


def open_connections(port: int) -> int:
    """Connections that the server on a port of this process has open."""
    return sum(
        1 for one in psutil.Process().net_connections("tcp") if one.laddr.port == port and one.status == "ESTABLISHED"
    )


def test_what_is_too_much_is_refused(port: int, url: str) -> None:
    for length in (2**20 + 1, 99999999999999999999):
        with opened(port) as connection:
            connection.sendall(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length)
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    # The answer closes the connection, and what the client still sends then may take the answer from it.
    with opened(port) as connection, suppress(ConnectionError):
        connection.sendall(b"POST /filter HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    wait_until(
        lambda: re.search(r'status="413"[^}]*} 3.0', get(f"{url}/metrics")[1]),
        10,
        "the third is not counted as refused",
    )
    with opened(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n")
        assert connection.recv(4096)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")
    with ExitStack() as together:  # two bodies that are each small enough
        for _ in range(2):
            connection = together.enter_context(opened(port))
            connection.sendall(
                b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n" + b"x" * 1_000_000
            )
        wait_until(lambda: 'status="503"' in get(f"{url}/metrics")[1], 10, "the second is refused")
    assert get(f"{url}/healthz")[0] == 200


def test_ways_of_http(port: int) -> None:
    body = (RECORDED / "names.request.json").read_bytes()
    verb = b"POST /prioritize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with opened(port) as connection:  # one connection for several requests, three of them at once
        connection.sendall(verb)
        answer = HTTPResponse(connection)
        answer.begin()
        scores = answer.read()
        connection.sendall(verb * 3 + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answered(connection).count(scores) == 3
    with opened(port) as connection:
        connection.sendall(verb.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert answered(connection).endswith(scores)
    with opened(port) as connection:
        pieces = b"".join(b"%x\r\n%s\r\n" % (1, body[place : place + 1]) for place in range(len(body)))
        head = b"POST /prioritize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + pieces + b"0\r\n\r\n")
        assert answered(connection).endswith(scores)
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /filter HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        with opened(port) as connection:
            connection.sendall(nonsense + b"\r\n\r\n")
            assert answered(connection)[:12] in (b"HTTP/1.1 400", b"")


def test_sigterm_lets_requests_end_and_exits_with_0(owner: Connection, database: str, tmp_path: Path) -> None:
    body, port = (RECORDED / "names.request.json").read_bytes(), free_port()
    (tmp_path / "vacancy.toml").write_text(
        f'[postgres]\nreader_dsn = "{database}"\n[extender]\nanswer_within = "3 s"\n', encoding="utf-8"
    )
    program = vacancy("extender", "--config", "vacancy.toml", "--listen", f"127.0.0.1:{port}")
    with Process(program, tmp_path, tmp_path / "extender.log") as extender:
        extender.wait_for("listens on")
        with (
            closing(psycopg2.connect(database)) as locking,
            locking.cursor() as cursor,
            ThreadPoolExecutor(1) as caller,
        ):
            cursor.execute("LOCK TABLE vacancy.host")
            answer = caller.submit(post, f"http://127.0.0.1:{port}/filter", body)
            wait_until(
                lambda: query(owner, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                              " AND application_name = 'vacancy extender' AND wait_event_type = 'Lock'") == [(1,)],
                10, "the request waits for the table",
            )  # fmt: skip
            with opened(port):  # this one has no request under way
                extender.process.send_signal(signal.SIGTERM)
                assert answer.result()["NodeNames"] == json.loads(body)["NodeNames"]
                assert extender.process.wait(END_SECONDS * PATIENCE) == 0, extender.output
