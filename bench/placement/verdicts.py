"""Placement's verdicts on which requests fit a provider: cases on stdin, verdicts on stdout, both JSON.

A case is a provider and a request to it::

    {"inventories": {class: {"total": ...}}, "used": {class: amount}, "traits": [...], "aggregates": [...],
     "resources": {class: amount}, "required": [...], "any_of": [[...]], "forbidden": [...], "member_of": [...]}

Its verdict has the results of Placement's two checks: ``candidate``, whether the provider is among the allocation
candidates, and ``allocated``, whether it then accepts the allocation, which does not check traits and aggregates.
"""

from __future__ import annotations

import json
import sys
import uuid
from typing import Any

from bench.placement.api import Api, expect

_MOST = 2**31 - 1


def verdict(api: Api, case: dict[str, Any]) -> dict[str, bool]:
    """Creates the provider, asks for candidates and for the allocation."""
    provider = str(uuid.uuid4())
    made = json.loads(expect(api("POST", "/resource_providers", {"name": provider, "uuid": provider}), 200))
    generation: int = made["generation"]

    def put(what: str, **body: Any) -> None:
        nonlocal generation
        path = f"/resource_providers/{provider}/{what}"
        answer = expect(api("PUT", path, {"resource_provider_generation": generation, **body}), 200)
        generation = json.loads(answer)["resource_provider_generation"]

    if used := {name: amount for name, amount in case["used"].items() if amount}:
        # The used amounts were allocated while there was room for them.
        put("inventories", inventories={name: {"total": _MOST, "max_unit": _MOST} for name in used})
        expect(api.allocate(str(uuid.uuid4()), provider, used), 204)
        generation += 1
    put("inventories", inventories=case["inventories"])
    if case["traits"]:
        put("traits", traits=case["traits"])
    if case["aggregates"]:
        put("aggregates", aggregates=case["aggregates"])
    candidates = json.loads(expect(api("GET", f"/allocation_candidates?{_query(provider, case)}"), 200))
    status, body = api.allocate(str(uuid.uuid4()), provider, case["resources"])
    expect((status, body), 204, 409)
    return {"candidate": provider in candidates["provider_summaries"], "allocated": status == 204}


def _query(provider: str, case: dict[str, Any]) -> str:
    parts = [f"in_tree={provider}"]
    parts.append("resources=" + ",".join(f"{name}:{amount}" for name, amount in case["resources"].items()))
    if traits := [*case["required"], *(f"!{trait}" for trait in case["forbidden"])]:
        parts.append("required=" + ",".join(traits))
    parts += ["required=in:" + ",".join(alternatives) for alternatives in case["any_of"]]
    if case["member_of"]:
        parts.append("member_of=in:" + ",".join(case["member_of"]))
    return "&".join(parts)


def main() -> None:
    """Reads the cases, writes the verdicts."""
    cases = json.load(sys.stdin)
    api = Api()
    for trait in sorted({trait for case in cases for trait in case["traits"] if trait.startswith("CUSTOM_")}):
        expect(api("PUT", f"/traits/{trait}"), 201)
    json.dump([verdict(api, case) for case in cases], sys.stdout)


if __name__ == "__main__":
    main()
