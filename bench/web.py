"""What the fleet page costs, and how quick it is: its server, its share of the database, its frames, a browser.

Rows of `host` are rewritten at a rate, as the job does it. The page's server then has no browsers, 20 of them (HTTP
clients that ask as the page does), and one real browser. CPU is that of the processes alone; times are upper bounds on
a machine that others use as well.

    python -m bench.web
    python -m bench.web --hosts 2000 --rows 1000 --no-save
"""

from __future__ import annotations

import statistics
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import click
import psutil
from playwright.sync_api import sync_playwright

from bench.common import CONSOLE, save
from bench.web_stack import CHROMIUM, WebStack, wait_for, web_stack

BROWSERS = 20
GAPS = """() => {
  window.gaps = [];
  let last = performance.now();
  const step = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(step); };
  requestAnimationFrame(step);
}"""
REQUEST = '{"vcpus": 64, "memory_mb": 81920, "disk_gb": 900, "required": ["HW_CPU_X86_AVX2"]}'
_WRITE = """
UPDATE vacancy.host SET observed_at = clock_timestamp(),
  vcpus_free = least(256, greatest(0, vcpus_free + round(4 * (random() - 0.5)))),
  memory_mb_available = least(262144, greatest(0, memory_mb_available + round(2000 * (random() - 0.5)))),
  cpu_utilization = least(1, greatest(0, cpu_utilization + 0.03 * (random() - 0.5)))
WHERE ctid = ANY (ARRAY(SELECT ctid FROM vacancy.host WHERE hashtext(host_id) & 1023 BETWEEN %s AND %s))
"""


class Writer:
    """Rewrites so many rows a second, each row in turn."""

    def __init__(self, stack: WebStack, hosts: int, rows: int) -> None:
        self.rows = 0
        self._stack, self._share = stack, min(1.0, rows / hosts)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        place, width = 0, max(1, round(1024 * self._share))
        with closing(self._stack.connect()) as connection, connection.cursor() as cursor:
            at = time.monotonic()
            while not self._stop.wait(max(0.0, at - time.monotonic())):
                cursor.execute(_WRITE, (place, min(1023, place + width - 1)))
                self.rows += cursor.rowcount
                place = (place + width) % 1024
                at += 1.0


class Clients:
    """Browsers without a screen: each asks for a frame when the page would."""

    def __init__(self, stack: WebStack, number: int) -> None:
        self.bytes: list[int] = []
        self._stack = stack
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
        connection = HTTPConnection(self._stack.address.removeprefix("http://"), timeout=30)
        epoch, number, wait = -1, -1, 0.0
        with closing(connection):
            while not self._stop.wait(wait):
                connection.request("GET", f"/api/frame?epoch={epoch}&since={number}&paint=vcpus_free")
                answer = connection.getresponse()
                body = answer.read()
                wait = int(answer.headers["x-next"]) / 1000 + 0.03
                if body:
                    if number >= 0:
                        self.bytes.append(len(body))
                    epoch, number = struct.unpack_from("<II", body)


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


def _timed(ask: Callable[[], object], times: int) -> float:
    """The median of so many calls, in ms."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(2.1)  # longer than an answer is kept
    return round(statistics.median(took), 1)


def _get(stack: WebStack, path: str) -> bytes:
    with closing(HTTPConnection(stack.address.removeprefix("http://"), timeout=60)) as connection:
        connection.request("GET", path, headers={"accept-encoding": "gzip, deflate"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body


def _browser(stack: WebStack, seconds: float) -> dict[str, Any]:
    """A real browser: when the map is painted, what a frame takes, the longest gap between two pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        painted = []
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1440, "height": 860})
            page.goto(stack.address)
            wait_for(page, "window.vacancy?.perf.painted > 0")
            painted.append(page.evaluate("() => vacancy.perf.painted"))
            page.close()
        page = browser.new_page(viewport={"width": 1440, "height": 860})
        sizes: dict[str, int] = {}
        page.on("response", lambda answer: sizes.update({answer.url: int(answer.headers.get("content-length", 0))}))
        page.goto(stack.address)
        wait_for(page, "window.vacancy?.names.length > 0")
        code = sum(size for url, size in sizes.items() if "/api/" not in url)
        page.wait_for_timeout(3000)
        page.evaluate(GAPS)
        page.wait_for_timeout(seconds * 1000)
        frames = page.evaluate("() => vacancy.perf.frames")
        gaps = page.evaluate("() => gaps.slice(2)")
        browser.close()
    work = sorted(frame["work"] for frame in frames if frame["kind"] == 1)
    return {
        "map_painted_ms": round(statistics.median(painted)),
        "work_a_frame_p95_ms": round(work[len(work) * 95 // 100], 1),
        "longest_gap_ms": round(max(gaps), 1),
        "page_gzip_bytes": code,
        "snapshot_bytes": next(frame["bytes"] for frame in frames if frame["kind"] == 0 and frame["bytes"] > 1000),
    }


def _hot(stack: WebStack) -> tuple[int, int]:
    with closing(stack.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'host'")
        updated, hot = cursor.fetchall()[0]
    return int(updated), int(hot)


@click.command()
@click.option("--hosts", default=100_000, show_default=True)
@click.option("--rows", default=10_000, show_default=True, help="Rows rewritten a second.")
@click.option("--seconds", default=20.0, show_default=True)
@click.option("--no-save", is_flag=True)
def main(hosts: int, rows: int, seconds: float, no_save: bool) -> None:
    """Measures the page."""
    with web_stack(hosts) as stack, Writer(stack, hosts, rows) as writer:
        deadline = time.monotonic() + 120
        while len(_get(stack, "/api/frame")) < 100:
            assert time.monotonic() < deadline, "the page's server does not see the hosts"
        time.sleep(3)  # the first look at all hosts is not what a tick costs
        result: dict[str, Any] = {"hosts": hosts, "alone": _share(stack, seconds)}
        began, before = time.monotonic(), writer.rows
        with Clients(stack, BROWSERS) as clients:
            result[f"with_{BROWSERS}_browsers"] = _share(stack, seconds)
            took = time.monotonic() - began
            result["frames_bytes_per_s_a_browser"] = round(sum(clients.bytes) / BROWSERS / took)
        result["rows_per_s"] = round((writer.rows - before) / (time.monotonic() - began))
        result["browser"] = _browser(stack, seconds)
        result["what_fits_ms"] = _timed(lambda: _get(stack, f"/api/fits?request={quote(REQUEST)}"), 3)
        result["why_one_host_ms"] = _timed(lambda: _get(stack, f"/api/why?id=host-20&request={quote(REQUEST)}"), 3)
        result["a_host_ms"] = _timed(lambda: _get(stack, "/api/host?id=host-20"), 3)
        updated, hot = _hot(stack)
        result["hot_share"] = round(hot / max(updated, 1), 4)
    CONSOLE.print_json(data=result)
    if not no_save:
        CONSOLE.print(f"saved {save('web', result)}")


if __name__ == "__main__":
    main()
