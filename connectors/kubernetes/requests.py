"""What a pod requests, as kube-scheduler counts it.

The rules are those of k8s.io/component-helpers/resource (``PodRequests``, v0.37) and of k8s.io/apimachinery's
``resource.Quantity``; ``tests/unit/kubernetes`` holds answers of these libraries.

What always holds: amounts are added up exactly, as whole billionths, and rounded up once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from vacancy.connectors.scheduler.ranking import Amount

_BILLION = 10**9
_GREATEST = 2**63 - 1
_LONGEST = 100
"""Characters. A longer text can only be garbage, and numbers of any length would cost any amount of time."""
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?:(?P<decimal>[numkMGTPE])|(?P<binary>[KMGTPE])i|[eE](?P<exponent>[+-]?0*[0-9]{1,2}))?"
)
_EXPONENTS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

_Amounts = dict[str, int]
"""Billionths by resource, ``cpu`` (CPUs) and ``memory`` (bytes); one that is not requested is missing."""


def quantity(text: object) -> Fraction:
    """A Kubernetes quantity (``1500m``, ``100u``, ``0.5Gi``, ``1e3``) as a number.

    As in apimachinery, null is 0, what is finer than a billionth is rounded away from zero, and what is more than
    2**63 - 1 counts as that. Exponents have two digits at most.

    Raises:
        ValueError: it is no quantity.
    """
    return Fraction(_billionths(text), _BILLION)


def pod_needs(arguments: Mapping[str, Any]) -> Amount:
    """What the pod of these ExtenderArgs requests.

    Containers and sidecars (init containers that restart ``Always``) add up. An init container runs beside the sidecars
    that were started before it, so the pod needs that as well if it is more. Amounts of the pod as a whole replace
    those of its containers, and ``overhead`` comes on top. While a pod is resized, the most counts of what is asked
    for, what is allocated and what is in force; the first does not if the resize is infeasible.

    Raises:
        ValueError: a request is no quantity.
        KeyError, TypeError, AttributeError: there is no pod.
    """
    pod = arguments["Pod"]
    spec, status = pod["spec"], pod.get("status") or {}
    infeasible = _resize_is_infeasible(status)
    in_force, allocated = (status.get("resources") or {}).get("requests"), status.get("allocatedResources")
    asked = {} if infeasible else _of_containers(spec, status, _asked)
    if in_force is not None and allocated is not None:  # the kubelet says it of the pod as a whole
        needs = _most(asked, _amounts(in_force, "pod"), _amounts(allocated, "pod"))
    else:
        otherwise = _nothing if infeasible else _asked
        needs = _most(
            asked,
            _of_containers(spec, status, lambda container, told: _allocated(container, told, otherwise)),
            _of_containers(spec, status, lambda container, told: _in_force(container, told, otherwise)),
        )
    of_pod = (spec.get("resources") or {}).get("requests") or {}
    if any(name in ("cpu", "memory") or name.startswith("hugepages-") for name in of_pod):
        if status.get("resources") is None:
            needs |= _amounts(of_pod, "pod")
        else:
            spoken_for = {} if infeasible else _amounts(of_pod, "pod")
            needs |= _most(spoken_for, _amounts(in_force, "pod"), _amounts(allocated, "pod"))
    needs = _sum(needs, _amounts(spec.get("overhead"), "overhead"))
    # kube-scheduler counts whole thousandths of a CPU, and whole bytes.
    return Amount(
        vcpus=max(_rounded_up(needs.get("cpu", 0), _BILLION // 1000), 0) / 1000,
        memory_mb=max(_rounded_up(needs.get("memory", 0), _BILLION), 0) / 2**20,
    )


def _billionths(text: object) -> int:
    if text is None:
        return 0
    number = str(text).strip()
    match = _QUANTITY.fullmatch(number) if len(number) <= _LONGEST else None
    if isinstance(text, bool) or match is None or not (match["whole"] or match["fraction"]):
        raise ValueError(f"{number[:_LONGEST]!r} is no quantity, such as 500m, 2Gi or 1e3")
    exponent = int(match["exponent"]) if match["exponent"] else _EXPONENTS.get(match["decimal"] or "", 0)
    fraction = match["fraction"] or ""
    exponent += 9 - len(fraction)
    value = int(match["whole"] + fraction)
    if match["binary"]:
        value <<= 10 * ("KMGTPE".index(match["binary"]) + 1)
    value = value * 10**exponent if exponent >= 0 else _rounded_up(value, 10**-exponent)
    value = min(value, _GREATEST * _BILLION)
    return -value if match["sign"] == "-" else value


def _rounded_up(value: int, unit: int) -> int:
    """How many units a value has, at least."""
    return -(-value // unit)


def _amounts(requests: Mapping[str, Any] | None, of: str) -> _Amounts:
    amounts = {}
    for resource in ("cpu", "memory"):
        if resource in (requests or {}):
            try:
                amounts[resource] = _billionths((requests or {})[resource])
            except ValueError as error:
                raise ValueError(f"{of}: {resource}: {error}") from None
    return amounts


def _sum(*given: _Amounts) -> _Amounts:
    return {name: sum(one.get(name, 0) for one in given) for name in {name for one in given for name in one}}


def _most(*given: _Amounts) -> _Amounts:
    return {name: max(one[name] for one in given if name in one) for name in {name for one in given for name in one}}


_Entry = Mapping[str, Any]
_View = Callable[[_Entry, _Entry], _Entry | None]
"""What a container requests by one count, from its entries in the pod's spec and status."""


def _asked(container: _Entry, status: _Entry) -> _Entry | None:
    del status
    return (container.get("resources") or {}).get("requests")


def _nothing(container: _Entry, status: _Entry) -> None:
    del container, status


def _allocated(container: _Entry, status: _Entry, otherwise: _View) -> _Entry | None:
    told = status.get("allocatedResources")
    return otherwise(container, status) if told is None else told


def _in_force(container: _Entry, status: _Entry, otherwise: _View) -> _Entry | None:
    told = (status.get("resources") or {}).get("requests")
    return _allocated(container, status, otherwise) if told is None else told


def _of_containers(spec: _Entry, status: _Entry, view: _View) -> _Amounts:
    """What all containers together need, at the moment when they need most."""
    statuses: dict[str, _Entry] = {}
    for one in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        statuses.setdefault(one["name"], one)

    def requests(container: _Entry) -> _Amounts:
        name = container.get("name", "?")
        return _amounts(view(container, statuses.get(name, {})), f"container {name}")

    sidecars: _Amounts = {}
    moments = []
    for container in spec.get("initContainers") or []:
        with_this = _sum(sidecars, requests(container))
        moments.append(with_this)
        if container.get("restartPolicy") == "Always":
            sidecars = with_this
    return _most(_sum(sidecars, *map(requests, spec.get("containers") or [])), *moments)


def _resize_is_infeasible(status: _Entry) -> bool:
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodResizePending":
            return bool(condition.get("reason") == "Infeasible")
    return False
