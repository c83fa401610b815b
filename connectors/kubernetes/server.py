"""The extender's HTTP: ``POST /filter`` and ``/prioritize``, ``GET /healthz``, ``/readyz`` and ``/metrics``.

What always holds:

- Every request has an answer in time, or its connection ends: the table's part is limited by `Nodes`, and a request
  whose client sends or reads too slowly by REQUEST_S.
- A client can take no more than its share: of a request, of all bodies together and of the connections, of which the
  one that has kept us waiting longest makes room for a new one.
- ``/healthz`` needs neither the table nor a free thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client import generate_latest as as_text
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from vacancy.connectors.kubernetes.extender import Extender
from vacancy.schemas.errors import VacancyError

REQUEST_S = 10.0
"""From a request's first byte until its answer is read."""
IDLE_S = 75
"""How long a connection may wait for its next request."""
MAX_CONNECTIONS = 128
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024
"""ExtenderArgs with names alone are 100 bytes a node; with whole nodes (not nodeCacheCapable) some 10 KB a node."""
MAX_BODIES_BYTES = 2 * MAX_BODY_BYTES
"""Of all requests together."""
_THREADS = 8
_LOG = logging.getLogger("vacancy.extender")
_Verb = Callable[[dict[str, Any], float], Any]


class _Limited(H11Protocol):
    """A connection that keeps nobody waiting for longer than REQUEST_S."""

    _clock: asyncio.TimerHandle | None = None
    since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base class
        super().connection_made(transport)
        self._start()
        open_ = [one for one in self.connections if isinstance(one, _Limited) and not one.transport.is_closing()]
        if len(open_) > MAX_CONNECTIONS:
            longest = min((one for one in open_ if one.keeps_waiting), key=lambda one: one.since)
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._clock is None:
            self._start()
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._stop()
        if self.transport.get_write_buffer_size():  # the client has not read it all
            self.loop.call_later(REQUEST_S, self._unless_read)
        cycle = self.cycle
        super().on_response_complete()
        if self.cycle is not cycle:  # the next request was here already
            self._start()

    @property
    def keeps_waiting(self) -> bool:
        """Whether it is the client that has to do something: send a request or the rest of it."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _start(self) -> None:
        self.since = self.loop.time()
        self._clock = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _stop(self) -> None:
        self.since = self.loop.time()
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _unless_read(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()


class _Application:
    """Answers requests: verbs in threads, everything else at once."""

    def __init__(self, extender: Extender) -> None:
        self._extender = extender
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="extender")
        self._bodies_bytes = 0
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "vacancy_extender_requests",
            "Requests by verb and status of the answer.",
            ["verb", "status"],
            registry=self._registry,
        )
        self._durations = Histogram(
            "vacancy_extender_request_duration_seconds",
            "How long answers took, from the end of the request.",
            ["verb"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self._registry,
        )
        self._unread = Counter(
            "vacancy_extender_unread",
            "Answers without the table, which could not be read in time: all nodes passed.",
            registry=self._registry,
        )
        extender.on_unread = self._unread.inc

        self._routed = Starlette(
            routes=[
                Route("/filter", self._verb("filter", extender.filter), methods=["POST"]),
                Route("/prioritize", self._verb("prioritize", extender.prioritize), methods=["POST"]),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={HTTPException: _as_json},  # type: ignore[dict-item]  # it is called with this kind alone
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        # h11's own limit is only for headers that come bit by bit.
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            await PlainTextResponse("the headers are too long\n", 431)(scope, receive, send)
        else:
            await self._routed(scope, receive, send)

    def close(self) -> None:
        self._threads.shutdown()

    def _verb(self, name: str, verb: _Verb) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                answer = await self._answer(name, verb, request)
            except HTTPException as error:
                self._requests.labels(name, str(error.status_code)).inc()
                raise
            self._requests.labels(name, "200").inc()
            return answer

        return endpoint

    async def _answer(self, name: str, verb: _Verb, request: Request) -> Response:
        body = bytearray()
        try:
            await self._receive(request, body)
            began = time.monotonic()
            by = began + self._extender.nodes.answer_within_s
            in_threads = asyncio.get_running_loop().run_in_executor
            document = await in_threads(self._threads, _called, verb, body, by)
            self._durations.labels(name).observe(time.monotonic() - began)
            return Response(document, media_type="application/json")
        except ClientDisconnect:
            raise HTTPException(400, "the request ended early") from None
        finally:
            self._bodies_bytes -= len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        """Reads a request's body, as far as it may be."""
        told = request.headers.get("content-length", "0")
        if int(told) > MAX_BODY_BYTES:
            raise HTTPException(413, f"a request may have {MAX_BODY_BYTES} bytes")
        async for chunk in request.stream():
            if len(body) + len(chunk) > MAX_BODY_BYTES:
                raise HTTPException(413, f"a request may have {MAX_BODY_BYTES} bytes")
            if self._bodies_bytes + len(chunk) > MAX_BODIES_BYTES:
                raise HTTPException(503, "too many large requests at once; try again")
            self._bodies_bytes += len(chunk)
            body += chunk

    async def _healthz(self, request: Request) -> Response:
        del request
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        del request
        nodes = self._extender.nodes
        by = time.monotonic() + nodes.answer_within_s
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, nodes.read, [], by)
        except VacancyError as error:
            _LOG.warning("not ready: %s", error)
            return PlainTextResponse("the table cannot be read; the log says why\n", 503)
        return PlainTextResponse("ok\n")

    async def _metrics(self, request: Request) -> Response:
        del request
        return Response(as_text(self._registry), media_type=CONTENT_TYPE_LATEST)


def _called(verb: _Verb, body: bytearray, by: float) -> bytes:
    """A verb's answer to the JSON of ExtenderArgs, as JSON."""
    try:
        answer = verb(json.loads(body, parse_constant=_refuse), by)
        return json.dumps(answer, allow_nan=False).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HTTPException(400, f"these are no ExtenderArgs: {type(error).__name__}: {error}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


async def _as_json(request: Request, error: HTTPException) -> Response:
    del request
    body = json.dumps({"Error": error.detail})  # in ASCII: the detail may quote any character of a request
    return Response(body, error.status_code, headers=error.headers, media_type="application/json")


class Server:
    """A server in a thread of its own; :meth:`shutdown` ends it once the requests under way have their answers."""

    def __init__(self, extender: Extender, listening: socket.socket) -> None:
        self._application = _Application(extender)
        # What clients do wrong is not logged one by one: a counter has it.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._application,
                http=_Limited,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=round(REQUEST_S) + 1,
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="http", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Takes no more connections, finishes what is under way, and returns."""
        self._server.should_exit = True
        self._thread.join()
        self._application.close()


@contextmanager
def serve(extender: Extender, address: str, port: int) -> Iterator[Server]:
    """A server that listens inside the ``with`` block.

    Raises:
        OSError: it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address.strip("[]"), port), family=family, backlog=MAX_CONNECTIONS) as listening:
        server = Server(extender, listening)
        try:
            yield server
        finally:
            server.shutdown()
