"""What the fleet page costs and how quick it is. Each command measures one thing in a short run and saves its result.

`cost`, `browser` and `questions` have a database in which rows of `host` are rewritten at a rate, as the job does it,
and the page's server. `beside` stops and resumes that server in turns, to see what it takes from others. `live` runs
the whole local stack, to see how long an event takes until it is painted. CPU is that of the processes alone; times
are upper bounds on a machine that others use as well.

    python -m bench.web cost          # server and database without and with 20 browsers, bytes of frames, HOT updates
    python -m bench.web browser       # in a real browser: the first map, work a frame, gaps between pictures, bytes
    python -m bench.web questions     # what fits, plain and complex; why one host is out; a host
    python -m bench.web beside        # claims and rows a second, with the page and without
    python -m bench.web live          # from the append of an event to its pixel, 30,000 hosts
    python -m bench.web cost --hosts 2000 --rows 1000 --seconds 5 --no-save
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
import statistics
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote

import click
import psutil
import psycopg2
from playwright.sync_api import Page, sync_playwright

from bench.claims import claim_ttl_of, decider
from bench.common import CONSOLE, OTHERS, cpu_seconds, percentiles, save
from bench.live import SILENCE, measure, stack_of, wait_until_caught_up, with_tolerance
from bench.web_stack import CHROMIUM, WAIT_SECONDS, WebStack, wait_for, web_stack
from tests.harness.waiting import wait_until
from vacancy.jobs.options import DurationType

BROWSERS = 20
SETTLE_S = 5.0
"""The first look at all hosts, and what the browser does when it starts, are not what a tick costs."""
IDLE_S = 15.0
"""After so long the server notices that nobody has the page open."""
VIEWPORT: Any = {"width": 1440, "height": 860}
GAPS = """() => {
  window.gaps = [];
  let last = performance.now();
  const step = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(step); };
  requestAnimationFrame(step);
}"""
# When each state of the table was in a picture: the animation frame after it was drawn.
PIXELS = """() => {
  window.pixels = [];
  let last = 0;
  const step = () => {
    const now = (performance.timeOrigin + performance.now()) / 1000;
    if (vacancy.now !== last) { last = vacancy.now; pixels.push([last, now]); }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}"""
PLAIN = '{"vcpus": 64, "memory_mb": 81920, "disk_gb": 900, "required": ["HW_CPU_X86_AVX2"]}'
REQUESTS = {
    "plain": PLAIN,
    "fits_all": '{"vcpus": 1}',
    "class": '{"vcpus": 4, "memory_mb": 8192, "resources": {"CUSTOM_LICENCE": 1}}',
    "devices": '{"vcpus": 4, "memory_mb": 8192, "pci": [{"vendor_id": "10de", "count": 2}]}',
    "cells": '{"vcpus": 4, "memory_mb": 8192, "numa": {"cpus": 2, "pages": {"2048": 1024}}}',
    "cells_and_devices": (
        '{"vcpus": 4, "memory_mb": 8192, "numa": {"cpus": 2}, "pci": [{"vendor_id": "10de", "same_cell": true}]}'
    ),
}
_WRITE = """
UPDATE vacancy.host SET observed_at = clock_timestamp(),
  vcpus_free = least(256, greatest(0, vcpus_free + round(4 * (random() - 0.5)))),
  memory_mb_available = least(262144, greatest(0, memory_mb_available + round(2000 * (random() - 0.5)))),
  cpu_utilization = least(1, greatest(0, cpu_utilization + 0.03 * (random() - 0.5)))
WHERE ctid = ANY (ARRAY(SELECT ctid FROM vacancy.host WHERE hashtext(host_id) & 1023 BETWEEN %s AND %s))
"""


class Writer:
    """Rewrites so many rows in a transaction, each row in turn; one transaction a second, or one after the other."""

    def __init__(self, stack: WebStack, hosts: int, rows: int, period_s: float = 1.0) -> None:
        self.rows = 0
        self._progress = (0.0, 0)
        self._stack, self._share, self._period_s = stack, min(1.0, rows / hosts), period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def progress(self) -> tuple[float, int]:
        """When the newest transaction was committed, and the rows until then."""
        return self._progress

    def _run(self) -> None:
        place, width = 0, max(1, round(1024 * self._share))
        with closing(self._stack.connect()) as connection, connection.cursor() as cursor:
            at = time.monotonic()
            while not self._stop.wait(max(0.0, at - time.monotonic())):
                cursor.execute(_WRITE, (place, min(1023, place + width - 1)))
                self.rows += cursor.rowcount
                self._progress = (time.monotonic(), self.rows)
                place = (place + width) % 1024
                at += self._period_s


class Clients:
    """Browsers without a screen: each asks for a frame when the page would."""

    def __init__(self, address: str, number: int) -> None:
        self.bytes: list[int] = []
        self._address = address.removeprefix("http://").rstrip("/")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        epoch, number, wait = -1, -1, 0.0
        with closing(HTTPConnection(self._address, timeout=60)) as connection:
            while not self._stop.wait(wait):
                try:
                    connection.request("GET", f"/api/frame?epoch={epoch}&since={number}&paint=vcpus_free")
                    answer = connection.getresponse()
                    body = answer.read()
                except (HTTPException, OSError):  # the server was stopped for longer than it keeps a connection
                    connection.close()
                    wait = 0.5
                    continue
                wait = int(answer.headers["x-next"]) / 1000 + 0.03
                if body:
                    if number >= 0:
                        self.bytes.append(len(body))
                    epoch, number = struct.unpack_from("<II", body)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--hosts", default=100_000, show_default=True),
        click.option("--rows", default=10_000, show_default=True, help="Rows rewritten a second."),
        click.option("--seconds", default=20.0, show_default=True, help="Length of each measurement."),
        click.option("--save/--no-save", "saved", default=True, show_default=True),
    ):
        function = option(function)
    return function


@click.group()
def main() -> None:
    """Measures the page."""


@main.command()
@_options
def cost(hosts: int, rows: int, seconds: float, saved: bool) -> None:
    """Cores that the server and its share of the database take, without browsers and with 20; bytes; HOT updates."""
    with web_stack(hosts) as stack, Writer(stack, hosts, rows) as writer:
        _wait_until_seen(stack)
        time.sleep(IDLE_S)
        others, began, before = cpu_seconds(), time.monotonic(), writer.rows
        alone = _share(stack, 3 * seconds)  # looks come each 30 s
        with Clients(stack.address, BROWSERS) as clients:
            time.sleep(SETTLE_S)  # the snapshots of those that have just come
            first, asked = len(clients.bytes), time.monotonic()
            beside = _share(stack, seconds)
            frames = clients.bytes[first:]
            bytes_per_s = sum(frames) / BROWSERS / (time.monotonic() - asked)
        took = time.monotonic() - began
        updated, hot = _hot(stack)
        _finish(
            "web_cost",
            {
                "hosts": hosts,
                "rows_per_s": round((writer.rows - before) / took),
                "no_browser": alone,
                f"{BROWSERS}_browsers": beside,
                "frame_bytes_per_s_a_browser": round(bytes_per_s),
                "hot_share": round(hot / max(updated, 1), 5),
                "others_cores_busy": round(cpu_seconds(others)[OTHERS] / took, 2),
            },
            saved=saved,
        )


@main.command()
@_options
def browser(hosts: int, rows: int, seconds: float, saved: bool) -> None:
    """A real browser: when the map is painted, work a frame, the longest gap between two pictures, and bytes."""
    with web_stack(hosts) as stack, Writer(stack, hosts, rows):
        _wait_until_seen(stack)
        time.sleep(SETTLE_S)
        result: dict[str, Any] = {"hosts": hosts, "rows_per_s": rows}
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            painted = []
            for _ in range(3):
                page = chromium.new_context(viewport=VIEWPORT).new_page()  # a context of its own has no cache
                page.goto(stack.address)
                wait_for(page, "window.vacancy?.perf.painted > 0")
                painted.append(page.evaluate("() => vacancy.perf.painted"))
                page.context.close()
            page = chromium.new_context(viewport=VIEWPORT).new_page()
            sizes: dict[str, int] = {}
            page.on("response", lambda answer: sizes.update({answer.url: int(answer.headers.get("content-length", 0))}))
            page.goto(stack.address)
            wait_for(page, "window.vacancy?.names.length > 0")
            first = {url.rpartition("/")[2] or "/": size for url, size in sizes.items() if "/api/" not in url}
            names = next(size for url, size in sizes.items() if "/api/hosts" in url)
            time.sleep(SETTLE_S)
            page.evaluate(GAPS)
            page.evaluate(
                "() => { vacancy.perf.snapshot = vacancy.perf.frames[0].bytes; vacancy.perf.frames.length = 0; }"
            )
            time.sleep(seconds)  # what is measured: the frames of this time
            frames = [frame for frame in page.evaluate("() => vacancy.perf.frames") if frame["kind"] == 1]
            gaps = sorted(page.evaluate("() => gaps.slice(2)"))
            snapshot = page.evaluate("() => vacancy.perf.snapshot")
            # What the other views load when somebody opens them.
            sizes.clear()
            for view in ("Table", "Sources", "Map"):
                page.get_by_role("link", name=view, exact=True).click()
                wait_for(page, f"document.querySelector('#views [aria-current]').textContent.startsWith('{view}')")
            page.goto(f"{stack.address}/?host=host-20")
            page.locator("#host .gauge").first.wait_for(timeout=60_000)
            later = {
                url.rpartition("/")[2]: size
                for url, size in sizes.items()
                if "/static/" in url and url.rpartition("/")[2] not in first
            }
            chromium.close()
        result |= {
            "map_painted_ms": {"median": round(statistics.median(painted)), "each": [round(ms) for ms in painted]},
            "work_a_frame_ms": percentiles([frame["work"] for frame in frames])
            | _p95([frame["work"] for frame in frames]),
            "inflate_ms": percentiles([frame["inflate"] for frame in frames]),
            "gaps_ms": percentiles(gaps),
            "page_bytes": {"first": sum(first.values()), "later": sum(later.values()), "each": first | later},
            "snapshot_bytes": snapshot,
            "names_bytes": names,
            "frame_bytes": percentiles([frame["bytes"] for frame in frames]),
        }
        _finish("web_browser", result, saved=saved)


@main.command()
@click.option("--hosts", default=100_000, show_default=True)
@click.option("--rows", default=10_000, show_default=True, help="Rows rewritten a second.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def questions(hosts: int, rows: int, saved: bool) -> None:
    """What fits, for plain and complex requests; why one host is out; a host. Each is asked three times."""
    with web_stack(hosts) as stack, Writer(stack, hosts, rows):
        _wait_until_seen(stack)
        paths = {("a_host_ms", ""): "/api/host?id=host-20"}
        for name, request in REQUESTS.items():
            paths["what_fits_ms", name] = f"/api/fits?request={quote(request)}"
            paths["why_one_host_ms", name] = f"/api/why?id=host-20&request={quote(request)}"
        took: dict[tuple[str, str], list[float]] = {place: [] for place in paths}
        for _ in range(3):  # in turns: an answer is kept for a moment
            for place, path in paths.items():
                took[place].append(_timed(stack, path))
            time.sleep(2.1)
        medians = {place: round(statistics.median(times), 1) for place, times in took.items()}
        result = {"hosts": hosts, "rows_per_s": rows} | {
            kind: {name: medians[kind, name] for name in REQUESTS} for kind in ("what_fits_ms", "why_one_host_ms")
        }
        _finish("web_questions", result | {"a_host_ms": medians["a_host_ms", ""]}, saved=saved)


@main.command()
@_options
@click.option("--turns", default=10, show_default=True, help="Each has a slice with the page and one without.")
def beside(hosts: int, rows: int, seconds: float, saved: bool, turns: int) -> None:
    """Claims a second and rows a second, in turns with the page (20 browsers) and with its server stopped.

    One client claims while rows are rewritten at the rate, in four transactions a second: what shows is how many claims
    there are, and whether the rate is held. Then one connection rewrites rows as quickly as it can. Both leave
    a part of two cores to the page, so that what shows is whether it stands in the way. The turns are as short as can
    be, since the rates of a machine wander by more than the page takes: where looks take long, they are seconds apart.
    """
    with web_stack(hosts) as stack, Clients(stack.address, BROWSERS) as clients:
        _wait_until_seen(stack)
        with (
            Writer(stack, hosts, rows // 4, 0.25) as writer,
            _Claimer(stack.owner_dsn, claim_ttl_of(hosts)) as claimer,
        ):
            claims, held = _in_turns(stack, (claimer.progress, writer.progress), turns, min(seconds, 2.0))
        with Writer(stack, hosts, rows, 0.0) as writer:
            (written,) = _in_turns(stack, (writer.progress,), turns, seconds)
        answered = len(clients.bytes)
        updated, hot = _hot(stack)
    result = {
        "hosts": hosts,
        "rows_per_s_beside_claims": rows,
        "turns": turns,
        "claims": claims,
        "rows_at_the_rate": held,
        "rows": written,
        "hot_share": round(hot / max(updated, 1), 5),
        "frames_answered": answered,
    }
    _finish("web_beside", result, saved=saved)


class _Claimer:
    """A process that claims without a pause."""

    def __init__(self, dsn: str, claim_ttl: timedelta) -> None:
        context = multiprocessing.get_context("spawn")
        self._claims, self._stop = context.Value("q", 0), context.Event()
        self._process = context.Process(target=_claim, args=(dsn, claim_ttl, self._claims, self._stop))

    def __enter__(self) -> _Claimer:
        self._process.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._process.join()

    def progress(self) -> tuple[float, int]:
        """Now, and how many claims there have been."""
        return time.monotonic(), self._claims.value


def _claim(dsn: str, claim_ttl: timedelta, claims: Any, stop: Any) -> None:
    decide = decider(dsn, claim_ttl)
    while not stop.is_set():
        assert (refused := decide()) is None, refused
        claims.value += 1


def _in_turns(
    stack: WebStack, progress: Sequence[Callable[[], tuple[float, int]]], turns: int, slice_s: float
) -> list[dict[str, Any]]:
    """For each progress its rates with the page's server and with it stopped, and the median of their ratios."""
    server = psutil.Process(stack.pid)
    rates: list[dict[str, list[int]]] = [{"with": [], "without": []} for _ in progress]
    wait_until(lambda: all(one()[1] > 0 for one in progress), WAIT_SECONDS, "nothing is claimed or written")
    try:
        for turn in range(turns):
            for way in ("with", "without") if turn % 2 == 0 else ("without", "with"):
                server.send_signal(signal.SIGCONT if way == "with" else signal.SIGSTOP)
                time.sleep(1.0)  # the first look after a pause is larger
                before = [one() for one in progress]
                time.sleep(slice_s)  # what is measured: the progress of this time
                for rate, (began, first), (ended, last) in zip(rates, before, [one() for one in progress], strict=True):
                    rate[way].append(round((last - first) / max(ended - began, 0.001)))
    finally:
        server.send_signal(signal.SIGCONT)
    return [_compared(rate) for rate in rates]


def _compared(rates: dict[str, list[int]]) -> dict[str, Any]:
    ratios = sorted(a / max(b, 1) for a, b in zip(rates["with"], rates["without"], strict=True))
    return {
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_of_sums": round(sum(rates["with"]) / max(sum(rates["without"]), 1), 3),
        "ratio_quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[len(ratios) * 3 // 4], 3)],
        "per_s": rates,
    }


@main.command()
@click.option("--hosts", default=30_000, show_default=True, help="Looked at each second.")
@click.option("--tolerance", default=0.0, show_default=True, help="What hosts leave unsent.")
@click.option("--max-silence", type=DurationType(), default="30s", show_default=True, help="With a tolerance.")
@click.option("--seconds", default=30.0, show_default=True)
@click.option("--warm-up", "warm_up_s", default=60.0, show_default=True, help="With a full table.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def live(hosts: int, tolerance: float, max_silence: timedelta, seconds: float, warm_up_s: float, saved: bool) -> None:
    """The whole stack: from an event's append to the picture that shows it, and to its row with the page and without.

    A row that was committed before a look began is in that look's frame; so the picture of the first frame of which the
    time is after the commit shows it, and at times an earlier one does.
    """
    emit = timedelta(seconds=1)
    caught_up, silence = (None, max_silence) if tolerance else (emit, SILENCE)
    with stack_of(hosts, emit, with_tolerance(tolerance, max_silence)) as stack, ExitStack() as opened:
        address = f"http://127.0.0.1:{stack.settings.local.web_port}"
        server = _page_server(stack.settings.local.web_port)
        measuring = functools.partial(
            measure, stack, "vacancy.host", hosts, seconds, check=stack.watch, silence=silence
        )
        result: dict[str, Any] = {"hosts": hosts, "tolerance": tolerance}
        result["no_browser"] = measuring(warm_up_s=warm_up_s, caught_up=caught_up)
        opened.enter_context(Clients(address, BROWSERS - 1))
        page = opened.enter_context(_page(address))
        wait_for(page, "window.vacancy?.names.length > 0")
        if caught_up:
            with closing(psycopg2.connect(stack.settings.postgres.owner_dsn.get_secret_value())) as connection:
                connection.autocommit = True
                # The start of a browser takes a core for seconds, in which the job falls behind on two of them.
                wait_until_caught_up(connection, "vacancy.host", hosts, caught_up, stack.watch)
        time.sleep(SETTLE_S)
        page.evaluate(PIXELS)
        seen: list[tuple[float, float]] = []
        with _Versions(stack.settings.postgres.owner_dsn.get_secret_value()) as versions:
            result[f"{BROWSERS}_browsers"] = measuring(warm_up_s=0)
            time.sleep(3.0)  # the pictures of the last rows
            seen = versions.seen()
        pixels = [(now, at) for now, at in page.evaluate("() => pixels")]
        result["event_to_pixel_s"] = percentiles(_event_to_pixel(seen, pixels))
        server.send_signal(signal.SIGSTOP)
        result["page_stopped"] = measuring(warm_up_s=SETTLE_S)
        server.send_signal(signal.SIGCONT)
    _finish("web_live_tolerance" if tolerance else "web_live", result, saved=saved)


class _Versions:
    """Reads a sample of rows several times a second: when each version's event was appended and its row committed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._found: dict[tuple[str, float], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Versions:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def seen(self) -> list[tuple[float, float]]:
        """Append and commit of each version that came while this ran, seconds since 1970."""
        self._stop.set()
        self._thread.join()
        return [(appended, committed) for (_, appended), committed in self._found.items()]

    def _run(self) -> None:
        with closing(psycopg2.connect(self._dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("SELECT host_id FROM vacancy.host ORDER BY hashtext(host_id) LIMIT 500")
            sample = [row[0] for row in cursor.fetchall()]
            before: set[tuple[str, float]] | None = None
            while not self._stop.wait(0.25):
                cursor.execute(
                    "SELECT host_id, date_part('epoch', observed_at),"
                    " date_part('epoch', pg_xact_commit_timestamp(xmin))"
                    " FROM vacancy.host WHERE host_id = ANY (%s)",
                    (sample,),
                )
                rows = cursor.fetchall()
                if before is None:
                    before = {(host, appended) for host, appended, _ in rows}
                for host, appended, committed in rows:
                    if (host, appended) not in before:
                        self._found.setdefault((host, appended), committed)


def _event_to_pixel(versions: Sequence[tuple[float, float]], pixels: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds from each event's append to the picture of it; pixels: times of frames and of their pictures."""
    nows = [now for now, _ in pixels]
    delays = []
    for appended, committed in versions:
        place = bisect_left(nows, committed)
        if committed > nows[0] and place < len(pixels):
            delays.append(pixels[place][1] - appended)
    return delays


def _page_server(port: int) -> psutil.Process:
    (server,) = (child for child in psutil.Process().children(recursive=True) if _listens(child, port))
    return server


def _listens(process: psutil.Process, port: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        listening = (place for place in process.net_connections("tcp") if place.status == psutil.CONN_LISTEN)
        return any(place.laddr.port == port for place in listening)
    return False  # one that has ended


@contextmanager
def _page(address: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = chromium.new_page(viewport=VIEWPORT)
            page.goto(address)
            yield page
        finally:
            chromium.close()


def _wait_until_seen(stack: WebStack) -> None:
    deadline = time.monotonic() + 120
    while len(_get(stack, "/api/frame")) < 500:
        assert time.monotonic() < deadline, "the page's server does not see the hosts"
        time.sleep(0.2)


def _cpu(stack: WebStack) -> tuple[float, float]:
    """CPU seconds of the page's server, and of the database's processes that work for it."""
    server = psutil.Process(stack.pid).cpu_times()
    database = 0.0
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "postgres" and any(word == "page" for word in " ".join(process.cmdline()).split()):
            times = process.cpu_times()
            database += times.user + times.system
    return server.user + server.system, database


def _share(stack: WebStack, seconds: float) -> dict[str, float]:
    before, began = _cpu(stack), time.monotonic()
    time.sleep(seconds)  # what is measured: what both use in this time
    after, took = _cpu(stack), time.monotonic() - began
    return {
        "server_cores": round((after[0] - before[0]) / took, 4),
        "database_cores": round((after[1] - before[1]) / took, 4),
    }


def _timed(stack: WebStack, path: str) -> float:
    """How long an answer takes, in ms."""
    began = time.perf_counter()
    _get(stack, path)
    return (time.perf_counter() - began) * 1000


def _p95(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p95": round(ordered[len(ordered) * 95 // 100], 3)}


def _get(stack: WebStack, path: str) -> bytes:
    with closing(HTTPConnection(stack.address.removeprefix("http://"), timeout=60)) as connection:
        connection.request("GET", path, headers={"accept-encoding": "gzip, deflate"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status in (200, 204), body
        return body


def _hot(stack: WebStack) -> tuple[int, int]:
    with closing(stack.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'host'")
        updated, hot = cursor.fetchall()[0]
    return int(updated), int(hot)


def _finish(name: str, result: dict[str, Any], *, saved: bool) -> None:
    CONSOLE.print_json(data=result)
    if saved:
        CONSOLE.print(f"saved {save(name, result)}")


if __name__ == "__main__":
    main()
