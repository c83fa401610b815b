"""Draws the pictures of docs/web.md: the fleet page on a database with 100,000 hosts, in a real browser.

python -m bench.web_pictures
python -m bench.web_pictures --hosts 2000 --into /tmp --all    # every view, both themes, wide and narrow
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import click
from playwright.sync_api import sync_playwright

from bench.web import Writer
from bench.web_stack import CHROMIUM, WebStack, wait_for, web_stack

DOCS = Path(__file__).parents[1] / "docs"
REQUEST = json.dumps({"vcpus": 64, "memory_mb": 81_920, "disk_gb": 900, "required": ["HW_CPU_X86_AVX2"]})
CLAIM = '{"vcpus": 4, "memory_mb": 8192, "disk_gb": 40, "max_age": "5 min", "claim_ttl": "10 min"}'
PICTURES = {
    "web-map": {"theme": "dark"},
    "web-fits": {"theme": "light", "request": REQUEST},
}
MORE = {
    "map-light": {"theme": "light", "host": "host-20"},
    "load": {"theme": "dark", "paint": "cpu_utilization", "group": "source"},
    "load-light": {"theme": "light", "paint": "cpu_pressure", "group": "aggregate"},
    "table": {"theme": "dark", "view": "table", "sort": "-cpu_utilization", "host": "host-100"},
    "table-light": {"theme": "light", "view": "table", "request": REQUEST},
    "sources": {"theme": "light", "view": "sources"},
    "freshness": {"theme": "dark", "view": "freshness"},
    "drift": {"theme": "dark", "view": "drift"},
    "claims": {"theme": "light", "view": "claims"},
}
SIZE, NARROW = (1440, 860), (390, 844)


@click.command()
@click.option("--hosts", default=100_000, show_default=True)
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), default=DOCS, show_default="docs")
@click.option("--all", "every", is_flag=True, help="Every view, in both themes, wide and narrow.")
def main(hosts: int, into: Path, every: bool) -> None:
    """Draws the pictures."""
    wanted = [(name, SIZE, shown) for name, shown in (PICTURES | (MORE if every else {})).items()]
    if every:
        wanted += [(f"{name}-narrow", NARROW, shown) for name, shown in (PICTURES | MORE).items()]
    with (
        web_stack(hosts, max_age="5 min") as stack,
        Writer(stack, hosts, hosts // 10),  # as a fleet does of which each host reports each 10 s
        sync_playwright() as playwright,
    ):
        _claim(stack, 60)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, (width, height), shown in wanted:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{stack.address}/?{urlencode(shown)}")
            wait_for(page, f"window.vacancy?.names.length >= {hosts}")
            wait_for(page, "vacancy.summary.rows_per_s > 0 && vacancy.summary.claims > 0")
            if "host" in shown:
                page.locator("#host .gauge").first.wait_for(timeout=60_000)
            if "request" in shown:
                page.locator("#fits .answer").wait_for(timeout=60_000)
            time.sleep(2.5)  # the figures of the head come with the next tick
            page.screenshot(path=into / f"{name}.png")
            page.close()
        browser.close()


def _claim(stack: WebStack, times: int) -> None:
    with closing(stack.connect()) as connection, connection.cursor() as cursor:
        for _ in range(times):
            cursor.execute("SELECT FROM vacancy.claim(ARRAY[gen_random_uuid()], %s)", (CLAIM,))


if __name__ == "__main__":
    main()
