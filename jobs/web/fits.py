"""What fits? A request tried on the live table without a claim: who fits, what rules others out, what would help."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import timedelta
from itertools import compress, repeat
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from vacancy.connectors.postgres.documents import documents
from vacancy.connectors.postgres.servers import Connection
from vacancy.connectors.scheduler.answers import dimension_label
from vacancy.connectors.scheduler.request import Numa, Pci, Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.settings import Settings
from vacancy.jobs.web.questions import Asking
from vacancy.schemas.units import format_duration

BEST = 8
ABSENT = 255
"""The code of a slot of which the look says nothing."""
_MAX_CODES = 254

# A value for each column and not for each host, which would take as long as the half of the look.
_WHAT_FITS = """
SELECT json_agg(host_id), json_agg(ruled_out_by), string_agg(int4send(dimensions), ''),
  string_agg(float8send(coalesce(score, 'NaN')), ''), string_agg(float8send(coalesce(available, 'NaN')), '')
FROM vacancy.what_fits(%s)
"""
_FIT_OF = "SELECT * FROM vacancy.fit_of(%(hosts)s, %(request)s)"
_LIMITS = ("cpu_utilization", "cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure")
# As best_of_all() orders them: what ran out is what comes last of those that ruled hosts out.
_BEFORE_CLASSES = (
    *("disabled", "include", "avoid", "zone", "aggregates", "near", "required", "any_of", "forbidden"),
    *("vcpus_unit", "memory_mb_unit", "disk_gb_unit", "no usage yet", "clock ahead", "stale", "duplicate id"),
    *("vcpus_free", "memory_mb_free", "disk_gb_free", "memory_mb_available", "disk_gb_available"),
    *(name + suffix for name in _LIMITS for suffix in ("", "_unknown")),
)


class Rows(NamedTuple):
    """The rows of `what_fits()`, by column; a number that is null there is not a number here."""

    hosts: list[str]
    ruled_out_by: list[str | None]
    dimensions: npt.NDArray[np.int32]
    score: npt.NDArray[np.float64]
    available: npt.NDArray[np.float64]


class Found(NamedTuple):
    """An answer, as the page has it.

    Attributes:
        document: counts, the best hosts, why none fits, and the request in other words; for JSON.
        hosts: all of them.
        ruled_out: of each the number of the first dimension in ``document["dimensions"]``, from 1; 0: it fits.
    """

    document: dict[str, Any]
    hosts: list[str]
    ruled_out: npt.NDArray[np.uint8]


class Fits:
    """Tries requests, one at a time."""

    def __init__(self, settings: Settings) -> None:
        self.asking = Asking(settings, "vacancy web what fits", 10.0, 2.0)
        self._scheduler = settings.scheduler

    def ask(self, request: Request) -> Found:
        """The answer for a request; errors as :meth:`Asking.ask`."""
        text = request.document(self._scheduler)

        def read(connection: Connection) -> Found:
            with connection.cursor() as cursor:
                cursor.execute(_WHAT_FITS, (text,))
                hosts, ruled_out_by, *numbers = cursor.fetchall()[0]
            rows = Rows(
                hosts or [],
                ruled_out_by or [],
                *(
                    np.frombuffer(column or b"", kind)
                    for column, kind in zip(numbers, (">i4", ">f8", ">f8"), strict=True)
                ),
            )
            values = {"hosts": [rows.hosts[place] for place in _best(rows)], "request": text}
            explained = [explain(row, request, self._scheduler) for row in documents(connection, _FIT_OF, values)]
            explained.sort(key=lambda host: -host["score"])
            return _answer(rows, explained, request, self._scheduler)

        return self.asking.ask(text, read)

    def of_host(self, host_id: str, request: Request) -> dict[str, Any] | None:
        """What rules one host out for a request, all of it, and what its score is made of; None: no such host."""
        text = request.document(self._scheduler)

        def read(connection: Connection) -> dict[str, Any] | None:
            rows = documents(connection, _FIT_OF, {"hosts": [host_id], "request": text})
            return next((explain(row, request, self._scheduler) for row in rows), None)

        return self.asking.ask((host_id, text), read)


def _best(rows: Rows) -> list[int]:
    """The places of the best hosts, the best first."""
    fits = np.flatnonzero(rows.dimensions == 0)
    return [int(place) for place in fits[np.argsort(-np.nan_to_num(rows.score[fits]), kind="stable")[:BEST]]]


def _answer(rows: Rows, best: list[dict[str, Any]], request: Request, settings: SchedulerSettings) -> Found:
    counted = Counter(rows.ruled_out_by)
    fits = counted.pop(None, 0)
    first = cast("Counter[str]", counted)
    alone = Counter(compress(rows.ruled_out_by, rows.dimensions == 1))
    names = [name for name, _ in sorted(first.items(), key=lambda item: (-item[1], item[0]))][:_MAX_CODES]
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names, start=1)}
    numbers[None] = 0
    document = {
        "hosts": len(rows.hosts),
        "fits": fits,
        "dimensions": [
            {"name": name, "label": dimension_label(name).rstrip(","), "first": first[name], "alone": alone[name]}
            for name in names
        ],
        "best": best,
        "refusal": None if fits else _refusal(rows, first, request, settings),
        "strategy": request.strategy or settings.strategy,
        "command": command_line(request),
        "json": request.model_dump(mode="json", exclude_defaults=True),
        "python": python_call(request),
    }
    codes = map(numbers.get, rows.ruled_out_by, repeat(_MAX_CODES))
    return Found(document, rows.hosts, np.fromiter(codes, np.uint8, len(rows.hosts)))


def _refusal(rows: Rows, first: Counter[str], request: Request, settings: SchedulerSettings) -> dict[str, Any]:
    """Why none fits, as `vacancy claim` says it."""
    if not rows.hosts:
        return {"dimension": "hosts", "requested": None, "nearest": None}
    dimension = min(first, key=lambda name: (-_position(name), -first[name], name))
    requested = _requested(dimension, request, settings)

    places = np.array([place for place, name in enumerate(rows.ruled_out_by) if name == dimension])
    places = places[rows.dimensions[places] == rows.dimensions[places].min()]
    away = np.abs(rows.available[places] - (math.nan if requested is None else requested))
    away[np.isnan(away)] = math.inf
    nearest = min(places[away == away.min()], key=lambda place: rows.hosts[place])
    had = float(rows.available[nearest])
    return {
        "dimension": dimension,
        "label": dimension_label(dimension).rstrip(","),
        "requested": requested,
        "nearest": {
            "host_id": rows.hosts[nearest],
            "had": had if math.isfinite(had) else None,
            "dimensions": int(rows.dimensions[nearest]),
        },
    }


def _position(dimension: str) -> float:
    name = "near" if dimension.startswith("near ") else dimension
    if dimension.startswith("disk_pool_own_disk "):
        return _BEFORE_CLASSES.index("disk_gb_unit") + 0.5
    if dimension.startswith("disk_pool_"):
        return _BEFORE_CLASSES.index("disk_gb_free")
    if name in _BEFORE_CLASSES:
        return _BEFORE_CLASSES.index(name)
    if dimension == "numa_cpus":
        return 101
    if dimension.startswith("numa_pages_"):
        return 102
    places = {"numa_memory_mb": 103, "numa": 104, "pci": 106}
    return places.get(dimension, 105 if dimension.startswith("pci ") else 100)


def _requested(dimension: str, request: Request, settings: SchedulerSettings) -> float | None:
    """How much a request asks of a dimension; None: that has no amount."""
    pages_kb = sum(size * count for size, count in request.numa.pages.items())
    cell_mb = max(request.memory_mb - pages_kb // 1024, 0)
    amounts: dict[str, float | None] = {
        "stale": (request.max_age or settings.max_age).total_seconds(),
        "vcpus_free": request.vcpus,
        "memory_mb_free": request.memory_mb,
        "disk_gb_free": request.disk_gb,
        "memory_mb_available": (request.memory_mb if request.numa == Numa() else cell_mb)
        + request.min_memory_mb_available,
        "disk_gb_available": request.disk_gb,
        **{name: getattr(request, f"max_{name}") for name in _LIMITS},
        **request.resources,
        "numa_cpus": request.numa.cpus,
        "numa_memory_mb": cell_mb,
        **{f"numa_pages_{size}": count for size, count in request.numa.pages.items()},
    }
    for demand in request.pci:
        name = _pci_name(demand)
        amounts[name] = max(amounts.get(name) or 0, demand.count)
    amount = amounts.get(dimension)
    if dimension.startswith(("disk_pool_free ", "disk_pool_available ")):
        amount = request.disk_gb
    return None if amount is None else float(amount)


def _pci_name(demand: Pci) -> str:
    """As parse_pci() names it."""
    ids = f"pci {(demand.vendor_id or '*').lower()}:{(demand.product_id or '*').lower()}"
    tags = " ".join(f"{name}={value}" for name, value in sorted(demand.tags.items()))
    node = "" if demand.numa_node is None else f"node {demand.numa_node}"
    return " ".join(part for part in (ids, tags, node) if part)


def explain(row: dict[str, Any], request: Request, settings: SchedulerSettings) -> dict[str, Any]:
    """A row of `fit_of()`, and its score term by term: room, load and age add up to it.

    `used` is the share of each class that would be in use with the claim, by promise or by measure, whichever is more.
    """
    strategy = request.strategy or settings.strategy
    weights = request.weights
    max_age_s = (request.max_age or settings.max_age).total_seconds()
    score = row["score"]
    document: dict[str, Any] = {
        **{name: row[name] for name in ("host_id", "host_name", "ruled_out_by")},
        "labels": [dimension_label(name).rstrip(",") for name in row["ruled_out_by"]],
        "score": score,
        "terms": None,
    }
    if score is None:
        return document
    free = {
        "vcpus": row["vcpus_free"] - request.vcpus,
        "memory_mb": min(
            row["memory_mb_free"] - request.memory_mb, row["memory_mb_available"] - _not_in_pages(request)
        ),
        "disk_gb": min(row["disk_gb_free"], row["disk_gb_available"]) - request.disk_gb,
    }
    used = {name: 1 - left / row[f"{name}_capacity"] for name, left in free.items() if row[f"{name}_capacity"]}
    weighed = {name: getattr(weights, name) * share for name, share in used.items()}
    decides, room = None, 0.0
    if strategy == "spread" and weighed:
        decides = max(weighed, key=weighed.__getitem__)
        room = -weighed[decides]
    elif strategy == "pack" and any(getattr(weights, name) for name in weighed):
        decides = min((name for name in weighed if getattr(weights, name)), key=weighed.__getitem__)
        room = weighed[decides]
    age = 0.0 if strategy == "random" else -weights.age * max(row["age_seconds"] / max_age_s, 0)
    known = {name: row[name] for name in ("cpu_utilization", "cpu_pressure", "memory_pressure", "io_pressure")}
    busiest = max((name for name in known if known[name] is not None), key=lambda name: known[name], default=None)
    document["terms"] = {
        "strategy": strategy,
        "used": {name: round(share, 4) for name, share in used.items()},
        "decides": decides,
        "room": room,
        # What is left: where a figure is not known, the typical one of a random sample counts in its place.
        "load": score - room - age,
        "busiest": busiest if all(value is not None for value in known.values()) else None,
        "age": age,
    }
    return document


def _not_in_pages(request: Request) -> int:
    if request.numa == Numa():
        return request.memory_mb
    return max(request.memory_mb - sum(size * count for size, count in request.numa.pages.items()) // 1024, 0)


def command_line(request: Request) -> str:
    """The `vacancy claim` that asks for the same."""
    import shlex

    words = ["vacancy", "claim"]
    for name in ("vcpus", "memory_mb", "disk_gb"):
        if getattr(request, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(request, name))]
    words += [word for name, amount in request.resources.items() for word in ("--resource", f"{name}={amount}")]
    if request.numa.cpus:
        words += ["--numa-cpus", str(request.numa.cpus)]
    words += [word for size, count in request.numa.pages.items() for word in ("--numa-pages", f"{size}={count}")]
    words += [word for demand in request.pci for word in ("--pci", _pci_flag(demand))]
    for flag, values in (
        ("--require", request.required),
        ("--any-of", [",".join(group) for group in request.any_of]),
        ("--forbid", request.forbidden),
        ("--aggregate", request.aggregates),
        ("--include", request.include),
        ("--avoid", request.avoid),
    ):
        words += [word for value in values for word in (flag, value)]
    for name in ("near", "zone", *(f"max_{limit}" for limit in _LIMITS), "min_memory_mb_available", "strategy"):
        if getattr(request, name) not in (None, 0) or (name.startswith("max_") and getattr(request, name) == 0):
            words += [f"--{name.replace('_', '-')}", str(getattr(request, name))]
    if request.max_age is not None:
        words += ["--max-age", format_duration(request.max_age)]
    if request.distinct_hosts:
        words.append("--distinct-hosts")
    return shlex.join(words)


def _pci_flag(demand: Pci) -> str:
    parts = [f"{demand.vendor_id or ''}:{demand.product_id or ''}"]
    if demand.count != 1:
        parts.append(f"count={demand.count}")
    if demand.numa_node is not None:
        parts.append(f"numa_node={demand.numa_node}")
    if demand.same_cell:
        parts.append("same_cell")
    parts += [f"{name}={value}" for name, value in demand.tags.items()]
    return ",".join(parts)


def python_call(request: Request) -> str:
    """The Python that asks for the same."""
    given = {
        name: getattr(request, name) for name in request.model_fields_set if getattr(request, name) != _DEFAULTS[name]
    }
    words = [f"{name}={_literal(value)}" for name, value in given.items()]
    return f"Scheduler(dsn).claim(Request({', '.join(words)}))"


def _literal(value: Any) -> str:
    if isinstance(value, timedelta):
        return repr(format_duration(value))
    if isinstance(value, Numa | Pci):
        return repr(value.model_dump(exclude_defaults=True))
    if isinstance(value, tuple) and value and isinstance(value[0], Pci):
        return repr([demand.model_dump(exclude_defaults=True) for demand in value])
    return repr(value)


_DEFAULTS: dict[str, Any] = Request().model_dump() | {"numa": Numa(), "pci": (), "weights": Request().weights}


def parse(text: str) -> Request:
    """A request from JSON.

    Raises:
        pydantic.ValidationError: it is none.
    """
    document = json.loads(text)
    return Request.model_validate(document)
