"""Placement's verdicts on which requests fit a provider: cases on stdin, verdicts on stdout, both JSON.

A case is a provider and a request to it::

    {"inventories": {class: {"total": ...}}, "used": {class: amount}, "traits": [...], "aggregates": [...],
     "resources": {class: amount}, "required": [...], "any_of": [[...]], "forbidden": [...], "member_of": [...],
     "pool": null or {"inventory": {"total": ...}, "used": amount, "is_shared": whether the host is in its aggregate}}

A pool is a provider of DISK_GB that shares via aggregates, and the host has none of its own. A request to such a host
names another class, too: without it Placement's candidate would be the pool alone.

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
    pool, resources = case["pool"], case["resources"]
    # In an aggregate of its own a host is found together with its pool, which is not in its tree.
    scope = str(uuid.uuid4())
    in_scope = [scope] if pool else []
    provider = _provider(api, case["inventories"], case["used"], case["traits"], [*case["aggregates"], *in_scope])
    parts = {provider: resources}
    where = f"in_tree={provider}"
    if pool:
        where = f"member_of={scope}"
        aggregates = in_scope if pool["is_shared"] else [str(uuid.uuid4())]
        used = {"DISK_GB": pool["used"]}
        shared = _provider(api, {"DISK_GB": pool["inventory"]}, used, ["MISC_SHARES_VIA_AGGREGATE"], aggregates)
        parts = {
            provider: {name: amount for name, amount in resources.items() if name != "DISK_GB"},
            shared: {name: amount for name, amount in resources.items() if name == "DISK_GB"},
        }
        parts = {each: amounts for each, amounts in parts.items() if amounts}
    candidates = json.loads(expect(api("GET", f"/allocation_candidates?{_query(where, case)}"), 200))
    status, body = api.allocate_parts(str(uuid.uuid4()), parts)
    expect((status, body), 204, 409)
    found = any(provider in each["allocations"] for each in candidates["allocation_requests"])
    return {"candidate": found, "allocated": status == 204}


def _provider(
    api: Api, inventories: dict[str, Any], used: dict[str, int], traits: list[str], aggregates: list[str]
) -> str:
    """Creates a provider; returns its id."""
    provider = str(uuid.uuid4())
    made = json.loads(expect(api("POST", "/resource_providers", {"name": provider, "uuid": provider}), 200))
    generation: int = made["generation"]

    def put(what: str, **body: Any) -> None:
        nonlocal generation
        path = f"/resource_providers/{provider}/{what}"
        answer = expect(api("PUT", path, {"resource_provider_generation": generation, **body}), 200)
        generation = json.loads(answer)["resource_provider_generation"]

    if used := {name: amount for name, amount in used.items() if amount}:
        # The used amounts were allocated while there was room for them.
        put("inventories", inventories={name: {"total": _MOST, "max_unit": _MOST} for name in used})
        expect(api.allocate(str(uuid.uuid4()), provider, used), 204)
        generation += 1
    put("inventories", inventories=inventories)
    if traits:
        put("traits", traits=traits)
    if aggregates:
        put("aggregates", aggregates=aggregates)
    return provider


def _query(where: str, case: dict[str, Any]) -> str:
    parts = [where]
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
