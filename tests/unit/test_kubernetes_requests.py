"""What pods request: answers of Kubernetes' own libraries, and an oracle that adds up moment by moment."""

from __future__ import annotations

import json
from decimal import ROUND_CEILING, ROUND_UP, Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.kubernetes.requests import pod_needs, quantity

ANSWERS = Path(__file__).with_name("kubernetes")
UNITS = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal("1e3"),
    "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"), "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(1024), "Mi": Decimal(1024**2), "Gi": Decimal(1024**3), "Ti": Decimal(1024**4),
    "Pi": Decimal(1024**5), "Ei": Decimal(1024**6),
    "e3": Decimal("1e3"), "E-2": Decimal("1e-2"), "e+05": Decimal("1e5"),
}  # fmt: skip
LIMIT = Decimal(2**63 - 1)
NUMBERS = st.tuples(
    st.sampled_from(["", "+", "-"]),
    st.one_of(
        st.integers(0, 10**6).map(str),
        st.tuples(st.integers(0, 10**6), st.text("0123456789", max_size=12)).map(lambda two: f"{two[0]}.{two[1]}"),
        st.text("0123456789", min_size=1, max_size=12).map(lambda digits: f".{digits}"),
    ),
    st.sampled_from(sorted(UNITS)),
)


def exact(sign: str, number: str, unit: str) -> Decimal:
    """The value of a quantity by decimal arithmetic, to a billionth away from zero, and no more than 2**63 - 1."""
    with localcontext(prec=200):
        value = (Decimal(number if number[0] != "." else f"0{number}") * UNITS[unit]).quantize(
            Decimal("1e-9"), ROUND_UP
        )
        return -min(value, LIMIT) if sign == "-" else min(value, LIMIT)


def answers(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((ANSWERS / name).read_text(encoding="utf-8"))
    return cases


def test_quantities_are_read_as_by_apimachinery() -> None:
    for case in answers("quantities.json"):
        if case["billionths"] is None:
            with pytest.raises(ValueError, match="is no quantity"):
                quantity(case["text"])
        else:
            expected = min(Fraction(case["billionths"]) / 10**9, Fraction(2**63 - 1))
            assert quantity(case["text"]) == expected, case["text"]


def test_pods_are_counted_as_by_kube_scheduler() -> None:
    for case in answers("pods.json"):
        needs = pod_needs({"Pod": case["pod"]})
        assert (round(needs.vcpus * 1000), round(needs.memory_mb * 2**20)) == (case["milli_cpu"], case["memory"]), case


@given(NUMBERS)
def test_every_quantity_is_its_decimal_value(parts: tuple[str, str, str]) -> None:
    assert quantity("".join(parts)) == Fraction(exact(*parts))


NO_QUANTITIES = [
    "", " ", "Gi", "m", "+", "-", ".", "two", "nan", "inf", "Infinity", "1e", "1e+", "1e999", "1E-400", "1.2.3", "1 Gi",
    "1_000", "0x10", "\uff11", "1\u0663", "1K", "1i", "1Zi", "--1", "1Gi\n1", "9" * 101, True, False, [], {},
    float("nan"),
]  # fmt: skip


@pytest.mark.parametrize("text", NO_QUANTITIES)
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, 0),
        (4, 4),
        (0.5, Fraction(1, 2)),
        (1e3, 1000),
        (" 2Gi ", 2**31),
        ("1e99", 2**63 - 1),
        ("-10E", -(2**63 - 1)),
    ],
)
def test_numbers_null_blanks_and_what_is_too_much(text: object, number: Fraction) -> None:
    assert quantity(text) == number


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    try:
        assert abs(quantity(text)) <= 2**63 - 1
    except ValueError as error:
        assert "is no quantity" in str(error)  # noqa: PT017  # most texts raise nothing else


CPU = st.sampled_from(["100u", "500000n", "1500m", "2", "0.1", "1e1"])
MEMORY = st.sampled_from(["3Gi", "500M", "1e9", "0.5Gi", "7", "1500m", "1E-1"])
REQUESTS = st.fixed_dictionaries({}, optional={"cpu": CPU, "memory": MEMORY, "nvidia.com/gpu": st.just("1")})
CONTAINERS = st.lists(st.tuples(st.booleans(), REQUESTS), max_size=5)


def at_its_most(
    resource: str,
    init: list[tuple[bool, dict[str, str]]],
    main: list[dict[str, str]],
    of_pod: dict[str, str] | None,
    overhead: dict[str, str] | None,
) -> Decimal:
    """The most that runs at one moment: each init container beside the sidecars before it, then all the rest."""
    amount = {"100u": "0.0001", "500000n": "0.0005", "1500m": "1.5", "1e1": "10", "3Gi": "3221225472",
              "500M": "500000000", "1e9": "1000000000", "0.5Gi": "536870912", "1E-1": "0.1"}  # fmt: skip

    def of(requests: dict[str, str] | None) -> Decimal:
        text = (requests or {}).get(resource, "0")
        return Decimal(amount.get(text, text))

    moments = [sum((of(r) for restarts, r in init if restarts), Decimal(0)) + sum(map(of, main), Decimal(0))]
    moments += [
        of(init[place][1]) + sum((of(r) for restarts, r in init[:place] if restarts), Decimal(0))
        for place in range(len(init))
    ]
    total = of(of_pod) if resource in (of_pod or {}) else max(moments)
    return total + of(overhead)


@given(CONTAINERS, st.lists(REQUESTS, max_size=4), st.none() | REQUESTS, st.none() | REQUESTS)
def test_a_pod_needs_what_runs_at_once_at_the_worst_moment(
    init: list[tuple[bool, dict[str, str]]],
    main: list[dict[str, str]],
    of_pod: dict[str, str] | None,
    overhead: dict[str, str] | None,
) -> None:
    spec: dict[str, Any] = {
        "containers": [{"name": f"main-{n}", "resources": {"requests": one}} for n, one in enumerate(main)],
        "initContainers": [
            {"name": f"init-{n}", "resources": {"requests": one}} | ({"restartPolicy": "Always"} if restarts else {})
            for n, (restarts, one) in enumerate(init)
        ],
    }
    if of_pod is not None:
        spec["resources"] = {"requests": of_pod}
    if overhead is not None:
        spec["overhead"] = overhead
    needs = pod_needs({"Pod": {"spec": spec}})
    cpus = at_its_most("cpu", init, main, of_pod, overhead).quantize(Decimal("0.001"), ROUND_CEILING)
    memory = at_its_most("memory", init, main, of_pod, overhead).quantize(Decimal(1), ROUND_CEILING)
    assert (Decimal(str(needs.vcpus)), Decimal(round(needs.memory_mb * 2**20))) == (cpus, memory)


def test_a_wrong_quantity_is_refused_with_its_place() -> None:
    pod = {"spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": "1", "memory": "3Gx"}}}]}}
    with pytest.raises(ValueError, match="container web: memory: '3Gx' is no quantity"):
        pod_needs({"Pod": pod})
    with pytest.raises(ValueError, match="overhead: cpu: 'two' is no quantity"):
        pod_needs({"Pod": {"spec": {"containers": [], "overhead": {"cpu": "two"}}}})
