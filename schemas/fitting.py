"""Makes an event as large as it may be, where what a collector reads is more than that.

What always holds: what :func:`encode_fitting` returns is within the schema's bounds for texts, lists, maps and
counters, and within :data:`~schemas.bounds.MAX_EVENT_BYTES`; and it says what it left out. What is left out offers
less, never more: a cell, a pool or a resource class that a host does not mention cannot be claimed.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, NamedTuple

from vacancy.schemas.bounds import COUNTER_END, MAX_EVENT_BYTES, plain, type_name
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event, newest

_NEWEST_LAST = frozenset({"recent_consumers"})
"""Lists of which the end is kept, not the beginning."""
_KEPT_WHOLE = frozenset({"allocated"})
"""What would offer more where it is cut: it goes with the classes of ``inventories``."""


class Fitted(NamedTuple):
    """An encoded event, and what is not in it: a line each, such as "8976 of 10000 numa_cells"."""

    payload: bytes
    left_out: tuple[str, ...]


class _Limits(NamedTuple):
    """A schema's bounds by field: of texts, of lists and maps; and its counters by what becomes of too large ones."""

    characters: Mapping[str, int]
    items: Mapping[str, int]
    begin_again: Collection[str]
    become_null: Collection[str]


def no_counts(record: Mapping[str, Any]) -> dict[str, str]:
    """The counters of a usage event that are no counts, such as a driver's 2^64 - 1, and why not: each is null.

    Honest counters end before :data:`~schemas.bounds.COUNTER_END`, but for those of time that all CPUs add to: 256 CPUs
    come to it in 208 days. These are counts all the same, and begin again at 0.
    """
    limits = _limits(Event.USAGE)
    values = {name: record.get(name) for name in (*limits.become_null, *limits.begin_again)}
    return {
        name: f"{value} is no count"
        for name, value in values.items()
        if value is not None and (value < 0 or (name in limits.become_null and value > COUNTER_END))
    }


def encode_fitting(encoder: Encoder, event: Event, record: Mapping[str, Any]) -> Fitted:
    """Encodes a record, cut to the schema's bounds and the largest event.

    A counter that has come to its end begins again at 0, which is a reset to those who read it; what is no count
    becomes null (:func:`no_counts`).

    Raises:
        ValueError: as :meth:`Encoder.encode`; or it is too large without anything that may be left out.
    """
    limits = _limits(event)
    fitted = dict(record)
    for name in limits.begin_again:
        if (fitted.get(name) or 0) > COUNTER_END:
            fitted[name] %= COUNTER_END + 1
    if event is Event.USAGE:
        fitted |= {name: None for name in no_counts(record) if name in limits.become_null}
    for name, characters in limits.characters.items():
        if len(fitted.get(name) or "") > characters:
            fitted[name] = fitted[name][:characters]
    for name, items in limits.items.items():
        if len(fitted.get(name) or ()) > items:
            _cut(fitted, name, items)
    payload = encoder.encode(fitted)
    while len(payload) > MAX_EVENT_BYTES:
        name = max(limits.items.keys() - _KEPT_WHOLE, key=lambda each: len(json.dumps(fitted.get(each))))
        if not fitted.get(name):
            raise ValueError(f"an event of {len(payload)} bytes; {MAX_EVENT_BYTES} is the most")
        _cut(fitted, name, len(fitted[name]) // 2)
        payload = encoder.encode(fitted)
    return Fitted(payload, tuple(_left_out(record, fitted, limits)))


class FittingEncoder:
    """Encodes one kind of event so that it fits; says what it leaves out of a host's, once as long as it is the same.

    Args:
        event: which record.
        encoder: makes its bytes.
        log: where it says so.
    """

    def __init__(self, event: Event, encoder: Encoder, log: logging.Logger) -> None:
        self._event = event
        self._encoder = encoder
        self._log = log
        self._left_out: dict[str, tuple[str, ...]] = {}

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """The framed bytes; as :func:`encode_fitting`."""
        payload, left_out = encode_fitting(self._encoder, self._event, record)
        what = f"the {self._event.name.lower()} of host {record['host_id']}"
        if left_out != self._left_out.pop(record["host_id"], ()):
            if left_out:
                self._log.warning("%s is more than an event holds; left out: %s", what, ", ".join(left_out))
            else:
                self._log.warning("%s fits an event again", what)
        if left_out:
            self._left_out[record["host_id"]] = left_out
        return payload


def _cut(record: dict[str, Any], name: str, items: int) -> None:
    """Leaves so many items of a list, or entries of a map."""
    value = record[name]
    if isinstance(value, Mapping):
        record[name] = dict(islice(value.items(), items))
        if name == "inventories" and record.get("allocated"):
            record["allocated"] = {key: held for key, held in record["allocated"].items() if key in record[name]}
    else:
        record[name] = list(value)[len(value) - items :] if name in _NEWEST_LAST else list(value)[:items]


def _left_out(record: Mapping[str, Any], fitted: Mapping[str, Any], limits: _Limits) -> list[str]:
    def missing(name: str) -> int:
        before: Collection[Any] = record.get(name) or ()
        return len(before) - len(fitted.get(name) or ())

    return [f"{missing(name)} of {len(record[name])} {name}" for name in sorted(limits.items) if missing(name)] + [
        f"the end of {name}" for name in limits.characters if missing(name)
    ]


@functools.cache
def _limits(event: Event) -> _Limits:
    fields: list[dict[str, Any]] = newest(event).document["fields"]
    kinds = {field["name"]: type_name(plain(field["type"])[0]) for field in fields}
    counters = {field["name"] for field in fields if field.get("maximum") == COUNTER_END}
    nullable = {field["name"] for field in fields if plain(field["type"])[1]}
    of_cpus = {field["name"] for field in fields if field.get("per") == "cpu_time"}
    return _Limits(
        characters={
            field["name"]: field["maxLength"] for field in fields if "maxLength" in field and "format" not in field
        },
        items={
            field["name"]: field["maxItems" if kinds[field["name"]] == "array" else "maxProperties"]
            for field in fields
            if kinds[field["name"]] in ("array", "map")
        },
        begin_again=frozenset(counters - nullable | of_cpus),
        become_null=frozenset(counters & nullable - of_cpus),
    )
