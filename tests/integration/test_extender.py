"""The scheduler extender: requests as kube-scheduler sends them, recorded from the published types, and our answers.

``tests/integration/extender`` has both. The requests were written, and the answers read back without an unknown field,
by a program over k8s.io/kube-scheduler v0.34.1 (its README has it). VACANCY_REGENERATE_GOLDENS=1 rewrites the answers.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import query, upsert_inventory, upsert_usage
from vacancy.connectors.kubernetes.extender import Extender, Nodes, node_names, pod_needs, quantity, serve
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
    with closing(nodes), serve(Extender(nodes), "127.0.0.1", port) as server:
        yield f"http://127.0.0.1:{port}"
        server.shutdown()


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


@pytest.mark.parametrize(
    ("text", "number"), [("1500m", 1.5), ("2Gi", 2**31), ("1e3", 1000), ("1G", 1e9), (4, 4), ("0.5", 0.5), ("3E", 3e18)]
)
def test_quantities(text: object, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "Gi", "two", "nan", "1e999"])
def test_what_is_no_quantity_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)
