"""What the server answers: the page, frames, hosts, and questions; all of it JSON, bytes or files, never markup."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from importlib import resources
from itertools import repeat
from typing import Any

import numpy as np
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from vacancy.connectors.scheduler.request import Request
from vacancy.jobs.settings import Settings
from vacancy.jobs.terminal import safe
from vacancy.jobs.web import fits
from vacancy.jobs.web.fleet import STATES
from vacancy.jobs.web.guard import Guard
from vacancy.jobs.web.letters import Letters
from vacancy.jobs.web.levels import AGES, BASE, DIMENSIONS, LEVELS, PAINTED
from vacancy.jobs.web.metrics import exposition
from vacancy.jobs.web.questions import BusyError, Questions
from vacancy.jobs.web.table import FIGURES
from vacancy.jobs.web.watch import Watch
from vacancy.schemas.errors import ConfigError, VacancyError

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_MAX_ROWS = 500
_MAX_FOUND = 1000
_CSV = ("name", "host_id", "zone", "source", "reason", "age", *FIGURES)


class Json(JSONResponse):
    """JSON in ASCII, which whoever asks from a terminal may look at as it comes."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Application:
    """The handlers, and what they read."""

    def __init__(self, settings: Settings, watch: Watch) -> None:
        self.watch = watch
        self.questions = Questions(settings)
        self.fits = fits.Fits(settings)
        self.letters = Letters(settings.kafka)
        self._settings = settings
        self._orders: dict[tuple[str, bool], tuple[float, bytes]] = {}

    def asgi(self) -> Starlette:
        """The application, guarded."""
        web = self._settings.web
        token = web.token.get_secret_value() if web.token else None
        return Starlette(
            routes=[
                # Whoever opens the page will ask for a frame in a moment: the look for it begins now.
                *(Route(path, _file(name, self.watch.noticed)) for path, name in _pages()),
                Route("/healthz", self.health),
                Route("/metrics", self.metrics),
                Route("/api/meta", self.meta),
                Route("/api/frame", self.frame),
                Route("/api/hosts", self.hosts),
                Route("/api/rows", self.rows),
                Route("/api/order", self.order),
                Route("/api/find", self.find),
                Route("/api/host", _answered(self.host)),
                Route("/api/past", self.past),
                Route("/api/events", _answered(self.events)),
                Route("/api/fits", _answered(self.what_fits)),
                Route("/api/why", _answered(self.why)),
                Route("/api/claims", _answered(lambda _: self.questions.claims())),
                Route("/api/drift", _answered(lambda _: self.questions.drift())),
                Route("/api/sources", _answered(lambda _: self.questions.sources())),
                Route("/api/pools", _answered(lambda _: self.questions.pools())),
                Route("/api/dead-letters", _answered(lambda _: self.letters.newest())),
                Route("/api/freshness", self.freshness),
                Route("/hosts.csv", self.csv),
            ],
            middleware=[
                Middleware(Guard, allow_hosts=web.allow_hosts, token=token, secure=web.certificate_file is not None)
            ],
        )

    async def health(self, _: HttpRequest) -> Response:
        """Whether the server lives, for whoever runs it; the database may be away."""
        return PlainTextResponse("ok\n")

    async def meta(self, _: HttpRequest) -> Response:
        """What does not change while the server lives."""
        max_age = self.watch.fleet.max_age_s
        return Json(
            {
                "base": BASE,
                "levels": LEVELS,
                "states": STATES,
                "figures": FIGURES,
                "ages": [times * max_age for times in AGES],
                "max_age": max_age,
                "strategy": self._settings.scheduler.strategy,
                "kafka": self.letters.configured,
            }
        )

    async def frame(self, request: HttpRequest) -> Response:
        """What a browser needs to have the newest state; 204: it has that. X-Next: ms until there is a newer one."""
        watch = self.watch
        if not watch.noticed():
            await run_in_threadpool(watch.freshen)
        epoch, number = _number(request, "epoch"), _number(request, "since")
        paint = request.query_params.get("paint", "")
        paint = paint if paint in DIMENSIONS else PAINTED[0]
        if not watch.is_painted(paint):
            await run_in_threadpool(watch.paint, paint)
        if watch.frames.cached(epoch, number, paint):
            body = watch.frames.since(epoch, number, paint)
        else:
            body = await run_in_threadpool(watch.frames.since, epoch, number, paint)
        watch.frame_bytes = len(body) or watch.frame_bytes
        headers = {"x-next": str(round(watch.until_next() * 1000))}
        if not body:
            return Response(status_code=204, headers=headers)
        return Response(body, media_type="application/octet-stream", headers=headers)

    def hosts(self, request: HttpRequest) -> Response:
        """Names, traits and so on, of the hosts in which they changed since a version; all, where none is named."""
        since = _number(request, "since") if _number(request, "epoch") == self.watch.frames.epoch else -1
        with self.watch.lock:
            fleet = self.watch.fleet
            version, zones, sources = fleet.version, list(fleet.zones), list(fleet.sources)
            changed = [(slot, host) for slot, host in enumerate(fleet.hosts) if fleet.changed_at[slot] > since]
        sets: dict[tuple[str, ...], int] = {}
        document = {
            "epoch": self.watch.frames.epoch,
            "version": version,
            "zones": zones,
            "sources": sources,
            "slots": [slot for slot, _ in changed] if since >= 0 else None,
            "names": [host.name for _, host in changed],
            "traits": [sets.setdefault(host.traits, len(sets)) for _, host in changed],
            "aggregates": [sets.setdefault(host.aggregates, len(sets)) for _, host in changed],
            "reasons": {slot: host.status_reason for slot, host in changed if host.status_reason},
        }
        document["sets"] = list(sets)
        return _deflated(json.dumps(document, separators=(",", ":")).encode(), "application/json")

    def rows(self, request: HttpRequest) -> Response:
        """The figures of some hosts, as they are in memory."""
        slots = [int(text) for text in request.query_params.get("slots", "").split(",") if text.isdigit()][:_MAX_ROWS]
        with self.watch.lock:
            fleet = self.watch.fleet
            found = [slot for slot in slots if slot < len(fleet) and fleet.hosts[slot].host_id]
            return Json([fleet.document(slot) for slot in found])

    def order(self, request: HttpRequest) -> Response:
        """The slots of all hosts in the order of a column, as u32; one sorting in a while serves all browsers."""
        by = request.query_params.get("by", "name")
        by = by if by in _CSV else "name"
        descending = bool(request.query_params.get("descending"))
        at, body = self._orders.get((by, descending), (0.0, b""))
        if not at or time.monotonic() - at > 2:
            with self.watch.lock:
                slots = self.watch.fleet.order(by, descending=descending)
            body = zlib.compress(struct.pack(f"<{len(slots)}I", *slots), 1)
            self._orders[by, descending] = (time.monotonic(), body)
        return Response(body, media_type="application/octet-stream", headers={"content-encoding": "deflate"})

    def find(self, request: HttpRequest) -> Response:
        """The slots of hosts of which the id or the name holds a text."""
        text = request.query_params.get("q", "").lower()
        with self.watch.lock:
            hosts = list(self.watch.fleet.hosts)
        found = [slot for slot, host in enumerate(hosts) if text in host.host_id.lower() or text in host.name.lower()]
        return Json(found[:_MAX_FOUND] if text else [])

    def host(self, request: HttpRequest) -> Any:
        """A host, whole, and its last minutes."""
        host_id, slot = self._host_id(request)
        document = self.questions.host(host_id)
        if document is None:
            raise _NoSuchHostError(f"{host_id}: no such host")
        return {"slot": slot, **document}

    def past(self, request: HttpRequest) -> Response:
        """A host's last minutes, from this server's memory."""
        slot = _number(request, "slot")
        with self.watch.lock:
            if not 0 <= slot < len(self.watch.fleet):
                return Json({"error": "no such host"}, 404)
            return Json(self.watch.fleet.past(slot))

    def events(self, request: HttpRequest) -> Any:
        """A host's newest usage events, from the end of its partition."""
        host_id, _ = self._host_id(request)
        return self.letters.events(host_id)

    def what_fits(self, request: HttpRequest) -> Response:
        """A request tried on all hosts: JSON, and a byte a slot, by which the map is painted."""
        found = self.fits.ask(_request(request))
        with self.watch.lock:
            slot_of = self.watch.fleet.slot_of
            slots = np.fromiter(map(slot_of.get, found.hosts, repeat(-1)), np.int64, len(found.hosts))
            codes = np.full(len(self.watch.fleet), fits.ABSENT, np.uint8)
            codes[slots[slots >= 0]] = found.ruled_out[slots >= 0]
            document = found.document | {
                "best": [host | {"slot": slot_of.get(host["host_id"])} for host in found.document["best"]]
            }
            if document["refusal"] and document["refusal"]["nearest"]:
                nearest = document["refusal"]["nearest"]
                slot = slot_of.get(nearest["host_id"])
                name = self.watch.fleet.hosts[slot].name if slot is not None else nearest["host_id"]
                document["refusal"] = document["refusal"] | {"nearest": nearest | {"slot": slot, "name": name}}
            document["epoch"] = self.watch.frames.epoch
        text = json.dumps(document, separators=(",", ":")).encode()
        return _deflated(struct.pack("<I", len(text)) + text + codes.tobytes(), "application/octet-stream")

    def why(self, request: HttpRequest) -> Any:
        """What rules one host out for a request, all of it."""
        host_id, _ = self._host_id(request)
        document = self.fits.of_host(host_id, _request(request))
        if document is None:
            raise _NoSuchHostError(f"{host_id}: no such host")
        return document

    def freshness(self, _: HttpRequest) -> Response:
        """How fresh the table was in the last hour, from this server's memory."""
        with self.watch.lock:
            return Json(list(self.watch.freshness))

    def csv(self, _: HttpRequest) -> Response:
        """All hosts as CSV."""
        self.watch.freshen()
        with self.watch.lock:
            fleet = self.watch.fleet
            rows = [fleet.document(slot) for slot in fleet.order("name")]
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(_CSV)
        writer.writerows([_cell(row[name]) for name in _CSV] for row in rows)
        headers = {"content-disposition": 'attachment; filename="vacancy-hosts.csv"', "content-encoding": "gzip"}
        return Response(gzip.compress(text.getvalue().encode(), 1), media_type="text/csv", headers=headers)

    def metrics(self, _: HttpRequest) -> Response:
        """The server's own metrics, for Prometheus."""
        return PlainTextResponse(exposition(self), media_type="text/plain; version=0.0.4")

    def close(self) -> None:
        """Closes what the questions have opened."""
        self.questions.asking.close()
        self.fits.asking.close()
        self.letters.close()

    def _host_id(self, request: HttpRequest) -> tuple[str, int]:
        """The host that a request names, by id or by slot."""
        slot = _number(request, "slot")
        with self.watch.lock:
            fleet = self.watch.fleet
            if 0 <= slot < len(fleet) and fleet.hosts[slot].host_id:
                return fleet.hosts[slot].host_id, slot
            host_id = request.query_params.get("id", "")
            return host_id, fleet.slot_of.get(host_id, -1)


class _NoSuchHostError(VacancyError):
    """The table has no such host."""


_STATUS = {BusyError: 503, ConfigError: 400, _NoSuchHostError: 404}


def _answered(handler: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Response]:
    """A handler whose errors become one line of JSON."""

    def answer(request: HttpRequest) -> Response:
        try:
            found = handler(request)
        except VacancyError as error:
            status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 502)
            return Json({"error": " ".join(str(error).split())}, status)
        return found if isinstance(found, Response) else Json(found)

    return answer


def _request(request: HttpRequest) -> Request:
    text = request.query_params.get("request", "{}")
    try:
        return fits.parse(text)
    except ValidationError as error:
        detail = error.errors()[0]
        field = ".".join(map(str, detail["loc"])) or "request"
        raise ConfigError(f"{field}: {detail['msg'].removeprefix('Value error, ')}") from None
    except ValueError:
        raise ConfigError("request: it is not JSON") from None


def _number(request: HttpRequest, name: str) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula, and no terminal for a command."""
    if not isinstance(value, str):
        return value
    return f"'{safe(value)}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else safe(value)


def _deflated(body: bytes, media_type: str) -> Response:
    return Response(zlib.compress(body, 1), media_type=media_type, headers={"content-encoding": "deflate"})


def _pages() -> Iterable[tuple[str, str]]:
    """The paths of the page's files; only what is listed is served."""
    root = resources.files(__package__).joinpath("static")
    yield "/", "index.html"
    for file in root.iterdir():
        if file.name.endswith((".js", ".css", ".svg")):
            yield f"/static/{file.name}", file.name
    yield "/static/vendor/lit-html/lit-html.js", "vendor/lit-html/lit-html.js"


def _file(name: str, noticed: Callable[[], object]) -> Callable[[HttpRequest], Awaitable[Response]]:
    """Serves a file of the page, compressed once; says that somebody has the page open."""
    body = resources.files(__package__).joinpath("static", *name.split("/")).read_bytes()
    packed = gzip.compress(body, 9, mtime=0)
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    kind = _TYPES[name[name.rindex(".") :]]
    headers = {"etag": tag, "cache-control": "no-cache", "vary": "accept-encoding"}

    async def serve(request: HttpRequest) -> Response:
        noticed()
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type=kind, headers=headers | {"content-encoding": "gzip"})
        return Response(body, media_type=kind, headers=headers)

    return serve
