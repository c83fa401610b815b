"""The fleet page in a real browser, on a real database."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import random
import re
import shlex
import zlib
from contextlib import closing
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlencode

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser

from tests.harness.claimers import INVENTORY
from tests.harness.histories import encode_usage, usage_event
from tests.harness.rows import query, retire, upsert_inventory, upsert_usage
from tests.harness.seeds import draws, seed_of
from tests.harness.sender import Sender
from tests.harness.waiting import PATIENCE, wait_until
from tests.web.conftest import HOSTS, Sight, Stack
from vacancy.connectors.kafka.client import producer
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.commands.cli import cli
from vacancy.jobs.web.fits import command_line, explain
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

HERE = Path(__file__).parent


class Answer(NamedTuple):
    """What the server answers, unpacked."""

    status: int
    headers: HTTPMessage
    body: bytes


def ask(stack: Stack, path: str, method: str = "GET", **headers: str) -> Answer:
    """Asks the server without a browser; the path goes out as it is."""
    connection = HTTPConnection(stack.address.removeprefix("http://"), timeout=30 * PATIENCE)
    with closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        match answer.headers.get("content-encoding"):
            case "gzip":
                body = gzip.decompress(body)
            case "deflate":
                body = zlib.decompress(body)
        return Answer(answer.status, answer.headers, body)


def get(stack: Stack, path: str, **parameters: str) -> Any:
    """What the server answers as JSON."""
    return json.loads(ask(stack, f"{path}?{urlencode(parameters)}").body)


def what_fits(stack: Stack, request: Request) -> dict[str, Any]:
    """The page's answer for a request."""
    text = json.dumps(request.model_dump(mode="json", exclude_defaults=True))
    body = ask(stack, f"/api/fits?{urlencode({'request': text})}").body
    size = int.from_bytes(body[:4], "little")
    document: dict[str, Any] = json.loads(body[4 : 4 + size])
    codes = body[4 + size :]
    assert codes.count(0) == document["fits"]
    return document


def test_the_map_shows_all_hosts_and_the_head_their_totals(sight: Sight, stack: Stack) -> None:
    with closing(stack.connect()) as connection:
        ((hosts, schedulable, vcpus),) = query(
            connection,
            "SET vacancy.max_age = '1 h'; SELECT count(*), count(*) FILTER (WHERE reason IS NULL),"
            " sum(vcpus_free) FILTER (WHERE reason IS NULL) FROM vacancy.schedulable_host",
        )
    assert (sight.ask("vacancy.summary.hosts"), sight.ask("vacancy.summary.counts.schedulable")) == (hosts, schedulable)
    assert sight.ask("vacancy.summary.totals.vcpus_free") == vcpus
    head = sight.page.locator("#head").inner_text()
    assert f"{hosts}\nhosts" in head or f"{hosts} hosts" in head.replace("\n", " ")
    # The strips are the zones, each with the number of its hosts.
    labels = sight.page.locator("#labels span").all_inner_texts()
    with closing(stack.connect()) as connection:
        zones = query(connection, "SELECT zone, count(*) FROM vacancy.host_inventory GROUP BY zone ORDER BY zone")
    assert labels == [f"{zone} {count}" for zone, count in zones]
    # It is painted: the canvas has colours other than its background.
    colours = sight.ask(
        "new Set(new Uint32Array(document.getElementById('map').getContext('2d')"
        ".getImageData(0, 0, 800, 600).data.buffer)).size"
    )
    assert colours > 10


def test_a_change_in_the_table_shows(sight: Sight, stack: Stack) -> None:
    slot = sight.ask("vacancy.names.indexOf('compute-000042')")
    with closing(stack.connect()) as connection:
        for free, level in ((256, 15), (0, 0)):
            query(connection, f"UPDATE vacancy.host SET vcpus_free = {free} WHERE host_id = 'host-42' RETURNING 1")
            sight.wait(f"vacancy.plane('vcpus_free')[{slot}] === {level}")


@pytest.mark.timing
def test_a_change_shows_within_a_second(sight: Sight, stack: Stack) -> None:
    slot = sight.ask("vacancy.names.indexOf('compute-000043')")
    with closing(stack.connect()) as connection:
        query(connection, "UPDATE vacancy.host SET vcpus_free = 256 WHERE host_id = 'host-43' RETURNING 1")
        sight.wait(f"vacancy.plane('vcpus_free')[{slot}] === 15", 1.0)


def test_a_claim_counts_on_the_page_and_hosts_come_and_go(sight: Sight, stack: Stack) -> None:
    with closing(stack.connect()) as connection:
        upsert_inventory(connection, host_id="late", name="late-comer", zone="az-z")
        upsert_usage(
            connection, host_id="late", observed_at=query(connection, "SELECT now()")[0][0], recent_consumers="{}"
        )
        sight.wait("vacancy.names.includes('late-comer')")
        slot = sight.ask("vacancy.names.indexOf('late-comer')")
        sight.wait(f"vacancy.plane('state')[{slot}] === 0")
        assert get(stack, "/api/rows", slots=str(slot))[0]["vcpus_free"] == 32
        request = json.dumps({"vcpus": 8, "include": ["late"], "max_age": "1 h"})
        query(connection, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], %s)", request)
        sight.wait("vacancy.summary.claims === 1")
        assert get(stack, "/api/rows", slots=str(slot))[0]["vcpus_free"] == 24
        sight.page.get_by_role("link", name="Claims").click()
        sight.page.get_by_role("button", name="late-comer").click()
        sight.page.locator("#host").get_by_role("heading", name="Claims in flight").wait_for()
        query(connection, "DELETE FROM vacancy.claim RETURNING 1")
        sight.wait("vacancy.summary.claims === 0")
        wait_until(lambda: get(stack, "/api/rows", slots=str(slot))[0]["vcpus_free"] == 32, 10, "it still counts")
        retire(connection, host_id="late", observed_at=query(connection, "SELECT now()")[0][0])
        sight.wait(f"vacancy.plane('state')[{slot}] === 6 && !vacancy.names.includes('late-comer')")
        query(connection, "DELETE FROM vacancy.host WHERE host_id = 'late' RETURNING 1")


def test_everything_is_done_by_keyboard_alone(sight: Sight) -> None:
    page = sight.page
    page.keyboard.press("/")
    page.keyboard.type("compute-000020")
    sight.wait("document.getElementById('matches').textContent === '1 found'")
    page.keyboard.press("Enter")
    page.locator("#host h2", has_text="compute-000020").wait_for()
    # What it is: its cells and devices, its traits.
    host = page.locator("#host").inner_text()
    assert "Schedulable." in host
    assert "10de:20b5" in host
    assert "cell 1: 1 of 4 CPUs free" in host
    assert "HW_CPU_X86_AVX512F" in host
    page.keyboard.press("Escape")  # of the field: what was found is cleared, and the map has the keys
    assert sight.ask("document.activeElement.id") == "map"
    page.keyboard.press("Escape")
    page.locator("#host h2", has_text=re.compile("^Host$")).wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    said = sight.wait("document.getElementById('say').textContent")
    assert re.match(r"compute-\d{6}, .*VCPUs free", said)
    page.keyboard.press("Enter")
    page.locator("#host h2", has_text=said.partition(",")[0]).wait_for()
    page.keyboard.press("t")
    page.locator("table.hosts tbody tr").nth(5).wait_for()
    page.locator(".scroll").focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.locator("#host h2", has_text="compute-000200").wait_for()
    page.keyboard.press("f")
    page.keyboard.press("Enter")
    page.locator("#fits .answer").wait_for()
    page.keyboard.press("Escape")
    page.locator("#map").evaluate("() => document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")


def test_the_legend_filters_map_and_table_alike_and_the_address_holds_it(
    sight: Sight, browser: Browser, stack: Stack
) -> None:
    page = sight.page
    page.locator("#legend").get_by_role("button", name="disabled").click()
    page.get_by_role("link", name="Table").click()
    sight.wait("document.querySelector('#page .bar p')?.textContent.includes('as the filter says')")
    disabled = sight.ask("vacancy.summary.counts.disabled")
    sight.wait(f"document.querySelector('#page .bar p').textContent.startsWith('{disabled} of')")
    rows = page.locator("table.hosts tbody tr:not(.space)")
    wait_until(lambda: rows.count() == disabled, 10, lambda: f"{rows.count()} rows, not {disabled}")
    wait_until(lambda: all("disabled: " in text for text in rows.all_inner_texts()), 10, "others are shown")
    # The same address shows another person the same.
    other = Sight(browser.new_page())
    try:
        other.open(page.url)
        other.wait(f"document.querySelector('#page .bar p')?.textContent.startsWith('{disabled} of')")
    finally:
        other.page.close()
    assert other.faults == []
    page.locator("#legend").get_by_role("button", name="show all").click()
    page.get_by_role("button", name="VCPUs free").click()
    sight.wait("new URL(location).searchParams.get('sort') === 'vcpus_free'")
    page.get_by_role("button", name="VCPUs free").click()
    with closing(stack.connect()) as connection:
        most = query(connection, "SELECT max(vcpus_free) FROM vacancy.schedulable_host")[0][0]
    sight.wait(
        "document.querySelector('table.hosts tbody tr:nth-child(2) td:nth-child(4)')?.textContent"
        f".startsWith('{most} ')"
    )


def test_groups_and_paints(sight: Sight) -> None:
    page = sight.page
    for group, labels in (
        ("source", ["host", "libvirt"]),
        ("none", ["none"]),
        ("trait:HW_CPU_X86_AVX512F", ["has", "has it not"]),
    ):
        page.locator("#controls select").nth(1).select_option(group)
        assert [
            text.rpartition(" ")[0].split(" HW")[0] for text in page.locator("#labels span").all_inner_texts()
        ] == labels
    for paint in ("cpu_utilization", "memory_pressure", "claims", "age", "drift", "memory_mb_available"):
        page.locator("#controls select").first.select_option(paint)
        sight.wait(f"vacancy.paint === '{paint}' && new URL(location).searchParams.get('paint') === '{paint}'")
        bars = "document.querySelectorAll('#legend .bars button').length"
        sight.wait(f"{bars} === {({'age': 10, 'drift': 2}).get(paint, 16)}")
    # Hosts that cannot tell are not taken for idle.
    page.locator("#controls select").first.select_option("cpu_utilization")
    page.locator("#legend").get_by_role("button", name="not known").wait_for()


@draws()
def test_what_fits_is_what_the_command_line_says(stack: Stack, kept: int | None) -> None:
    drawn = random.Random(seed_of(kept))
    config = str(stack.directory / "vacancy.toml")
    refused = 0
    for number in range(50):
        document = _request(drawn, complex_parts=number % 10 == 9)
        if number % 10 == 0:  # some fit nowhere, whatever is drawn
            document["zone"] = "elsewhere"
        elif number % 10 == 1:  # and some fit
            document = {"vcpus": 1}
        request = Request(**document)
        found = what_fits(stack, request)
        flags = shlex.split(command_line(request))[2:]
        result = CliRunner().invoke(cli, ["hosts", "--config", config, "--json", "--why", *flags])
        assert result.exit_code == 0, result.output
        told = {row["host_id"]: row["ruled_out_by"] for row in json.loads(result.output)}
        assert found["hosts"] == len(told)
        assert found["fits"] == sum(not by for by in told.values()), request
        if number % 10 != 9:
            first = [by[0] for by in told.values() if by]
            assert {each["name"]: each["first"] for each in found["dimensions"]} == {
                by: first.count(by) for by in first
            }
            alone = [by[0] for by in told.values() if len(by) == 1]
            assert {each["name"]: each["alone"] for each in found["dimensions"] if each["alone"]} == {
                by: alone.count(by) for by in alone
            }
        if found["fits"]:
            continue
        refused += 1
        result = CliRunner().invoke(cli, ["claim", "--config", config, "--json", *flags])
        refusal = json.loads(result.output)
        assert {each["name"]: each["first"] for each in found["dimensions"]} == refusal["ruled_out"], request
        assert found["refusal"]["dimension"] == refusal["dimension"]
        assert found["refusal"]["requested"] == refusal["requested"]
        if number % 10 != 9:
            assert found["refusal"]["nearest"]["host_id"] == refusal["nearest"]["host_id"]
    assert 5 <= refused <= 45, "the requests do not try both answers"


def _request(drawn: random.Random, *, complex_parts: bool) -> dict[str, Any]:
    """A request of a kind that some hosts can meet."""
    document: dict[str, Any] = {
        "vcpus": drawn.choice([1, 8, 32, 64]),
        "memory_mb": drawn.choice([0, 1024, 65_536, 200_000]),
        "disk_gb": drawn.choice([0, 10, 1000, 1900]),
    }
    chances: dict[str, Any] = {
        "required": ["HW_CPU_X86_AVX512F"],
        "forbidden": ["HW_CPU_X86_AVX2"],
        "any_of": [["HW_CPU_X86_AVX2", "NO_SUCH"], ["HW_CPU_X86_SSE42"]],
        "zone": drawn.choice(["az-c", "az-f", "elsewhere"]),
        "aggregates": ["a6cbb1bb-3c0a-4b0c-8a54-0d7d4d3c0a01"],
        "avoid": ["compute-000010", "host-12"],
        "include": [f"host-{number}" for number in range(1, 20)],
        "max_cpu_utilization": drawn.choice([0.2, 0.5]),
        "max_io_pressure": 0.01,
        "min_memory_mb_available": 50_000,
    }
    for name in drawn.sample(sorted(chances), drawn.randrange(3)):
        document[name] = chances[name]
    if complex_parts:
        document |= drawn.choice(
            [
                {"resources": {"CUSTOM_LICENCE": 1}},
                {"pci": [{"vendor_id": "10de", "count": drawn.choice([1, 9])}]},
                {"numa": {"cpus": drawn.choice([1, 5]), "pages": {2048: 1024}}},
            ]
        )
    return document


def test_a_score_is_the_sum_of_its_terms(stack: Stack) -> None:
    for strategy in ("spread", "pack", "random"):
        request = Request(vcpus=4, memory_mb=8192, strategy=strategy)
        best = what_fits(stack, request)["best"]
        assert len(best) == 8
        assert best == sorted(best, key=lambda host: -host["score"])
        for host in best:
            terms = host["terms"]
            assert terms["room"] + terms["load"] + terms["age"] == pytest.approx(host["score"])
            if terms["busiest"]:
                # The busiest figure counts with the weight of load, which is 1; nothing else does.
                (row,) = get(stack, "/api/rows", slots=str(host["slot"]))
                expected = 0.0 if strategy == "random" else -min(max(row[terms["busiest"]], 0), 1)
                assert terms["load"] == pytest.approx(expected, abs=1e-9)
    row = {"host_id": "a", "host_name": "a", "ruled_out_by": ["no usage yet"], "score": None}
    assert explain(row, Request(), SchedulerSettings())["terms"] is None


def test_a_request_is_tried_in_the_page(sight: Sight) -> None:
    page = sight.page
    page.get_by_label("VCPUs", exact=True).fill("64")
    page.get_by_label("required traits").fill("HW_CPU_X86_AVX2")
    page.get_by_role("button", name="Try on the live table").click()
    page.locator("#fits .answer").wait_for()
    fits = page.locator("#fits .answer b").inner_text()
    sight.wait("document.querySelector('#controls select').value === 'fits'")
    assert page.locator("#legend").get_by_role("button", name=re.compile("^fits")).inner_text().split()[-1] == fits
    page.get_by_text("The same elsewhere").click()
    assert (
        "vacancy claim --vcpus 64 --memory-mb 8192 --disk-gb 40 --require HW_CPU_X86_AVX2"
        in page.locator("#fits").inner_text()
    )
    page.locator("#fits .best button").first.click()
    page.locator("#host").get_by_text("Fits the request").wait_for()
    # One that nothing meets says what ran out and who came nearest; one that makes no sense says so.
    page.get_by_label("VCPUs", exact=True).fill("257")
    page.get_by_label("required traits").fill("")
    page.get_by_role("button", name="Try on the live table").click()
    sight.wait("document.querySelector('#fits').textContent.includes('Nearest')")
    page.get_by_label("near this storage pool").evaluate("(input) => { input.closest('details').open = true; }")
    page.get_by_label("near this storage pool").fill("no-such-pool")
    page.get_by_role("button", name="Try on the live table").click()
    page.locator("#fits").get_by_text("no such storage pool").wait_for()
    page.get_by_role("button", name="Clear").click()
    sight.wait("document.querySelector('#controls select').value === 'vcpus_free'")


def test_hostile_names_stay_text(sight: Sight, stack: Stack) -> None:
    name = "<img src=x onerror=alert(1)>\u202egnp.exe\u0007\u3164\U000e0041"
    with closing(stack.connect()) as connection:
        now = query(connection, "SELECT now()")[0][0]
        upsert_inventory(
            connection,
            host_id="hostile",
            name=name,
            zone="<script>alert(2)</script>",
            observed_at=now,
            status="DISABLED",
            status_reason="=cmd|'/c calc'!A0</td><svg onload=alert(3)>",
            source="=1+1\u202e",
            traits='{"CUSTOM_<b>\u202e"}',
        )
        upsert_usage(connection, host_id="hostile", observed_at=now)
        try:
            sight.wait("vacancy.names.some((name) => name?.startsWith('<img'))")
            slot = sight.ask("vacancy.names.findIndex((name) => name?.startsWith('<img'))")
            for view in ("Map", "Table", "Sources"):
                sight.page.get_by_role("link", name=view).click()
                sight.page.get_by_role("link", name=view, exact=True).wait_for()
            sight.page.goto(f"{stack.address}/?host=hostile&find=%3Cimg")
            shown = r"<img src=x onerror=alert(1)>\u202egnp.exe\u0007\u3164\U000e0041"
            sight.page.locator("#host h2").get_by_text(shown).wait_for()
            assert "=cmd|'/c calc'!A0</td><svg onload=alert(3)>" in sight.page.locator("#host").inner_text()
            assert sight.ask("document.querySelectorAll('img, script:not([src])').length") == 0
            assert "\u202e" not in sight.page.locator("body").inner_text()
            assert slot >= 0
            # A spreadsheet does not take it for a formula either.
            rows = list(csv.DictReader(io.StringIO(ask(stack, "/hosts.csv").body.decode())))
            (row,) = (row for row in rows if row["host_id"] == "hostile")
            assert row["source"] == r"'=1+1\u202e"
            # Nor a terminal for a command, whoever asks from one.
            for path in ("/api/host?id=hostile", f"/api/rows?slots={slot}", "/api/sources"):
                assert ask(stack, path).body.isascii(), path
            assert len(rows) == HOSTS + 1
        finally:
            retire(connection, host_id="hostile", observed_at=query(connection, "SELECT now()")[0][0])
            query(connection, "DELETE FROM vacancy.host WHERE host_id = 'hostile' RETURNING 1")


def test_a_host_shows_its_events_as_they_come(sight: Sight, stack: Stack) -> None:
    sender = Sender(stack.kafka)

    def send(host: str, seq: int, **fields: Any) -> None:
        sender.send([encode_usage(usage_event(host_id=host, seq=seq, **fields))], host)

    for number in range(40):  # others lie in the same partition
        send(f"host-{number % 8}", 1000 + number)
    for seq in (1, 2):
        send("host-20", seq, vcpus_capacity=256, vcpus_allocated=seq)
    sender.flush()
    sight.page.goto(f"{stack.address}/?host=host-20")
    sight.page.get_by_text("Its events as they come").click()
    rows = sight.page.locator("#host .events tbody tr")
    rows.nth(1).wait_for()
    assert [re.search(r"no\. \d+: .* VCPUs", text).group() for text in rows.all_inner_texts()] == [  # type: ignore[union-attr]  # it is there
        "no. 2: 2 of 256 VCPUs",
        "no. 1: 1 of 256 VCPUs",
    ]
    # While somebody looks: one more, one that is no event, and one that is of another kind.
    send("host-20", 3, vcpus_capacity=256, vcpus_allocated=3)
    sender.send(
        [
            b"\x00<img src=x onerror=alert(5)>",
            Encoder(Event.INVENTORY).encode(INVENTORY | {"host_id": "host-20", "name": "host-20"}),
        ],
        "host-20",
    )
    sender.flush()
    rows.nth(4).wait_for()
    texts = rows.all_inner_texts()
    assert "no usage event" in texts[0]
    assert "not decoded" in texts[1]
    assert "no. 3: 3 of 256 VCPUs" in texts[2]
    # Four hosts can be looked at at once; a fifth is told to come back.
    answers = [ask(stack, f"/api/events?id=host-{number}").status for number in range(4)]
    assert answers == [200, 200, 200, 503]


def test_dead_letters_show_by_reason_with_the_newest_of_each(sight: Sight, stack: Stack) -> None:
    client = producer(stack.kafka)
    payload = b"<img src=x onerror=alert(6)>\xe2\x80\xaegnp"
    for number, reason in enumerate(["unknown schema", "unknown schema", "<svg onload=alert(7)>\u202eof host"]):
        headers = {
            "vacancy.topic": "vacancy.usage",
            "vacancy.partition": "3",
            "vacancy.offset": str(number),
            "vacancy.append_time": f"2026-01-02T03:04:0{number}.678Z",
            "vacancy.reason": reason,
        }
        client.produce(
            stack.kafka.dead_letter_topic, payload, headers={name: text.encode() for name, text in headers.items()}
        )
        assert client.flush(20) == 0
    sight.page.get_by_role("link", name="Dead letters").click()
    rows = sight.page.locator("#page .list tbody tr")
    wait_until(lambda: rows.count() == 2, 30, lambda: sight.page.locator("#page").inner_text())
    first, second = rows.all_inner_texts()
    assert first.startswith("<svg onload=alert(7)>\\u202eof host\t1\t")
    assert second.startswith("unknown schema\t2\t")
    assert "vacancy.usage 3/1" in second
    assert "3c 69 6d 67" in second  # the payload is bytes, and is shown as bytes
    assert sight.ask("document.querySelectorAll('#page img, #page svg').length") == 0


def test_what_is_old_looks_old_and_comes_back_by_itself(sight: Sight, stack: Stack) -> None:
    page, trouble = sight.page, sight.page.locator("#trouble")
    stack.postgres.stop()
    try:
        trouble.get_by_text("The table cannot be read since").wait_for()
        assert sight.ask("getComputedStyle(document.getElementById('stage')).filter").startswith("grayscale(1)")
        page.get_by_role("button", name="Try on the live table").click()
        page.locator("#fits .hot").wait_for()
    finally:
        stack.postgres.start()
    trouble.wait_for(state="hidden")
    stack.web.kill()
    trouble.get_by_text("vacancy web has not answered since").wait_for()
    stack.web.start()
    trouble.wait_for(state="hidden")
    assert sight.ask("getComputedStyle(document.getElementById('stage')).filter") == "none"
    sight.wait(f"vacancy.summary.hosts === {HOSTS}")
    with closing(stack.connect()) as connection:
        query(connection, "UPDATE vacancy.host SET observed_at = observed_at - interval '3 h' RETURNING 1")
        trouble.get_by_text("No host has a new row since").wait_for()
        query(connection, "UPDATE vacancy.host SET observed_at = observed_at + interval '3 h' RETURNING 1")
    trouble.wait_for(state="hidden")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_in_the_way_of_anybody(browser: Browser, stack: Stack, theme: Any) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 860}, color_scheme=theme)
    context.add_init_script(path=HERE / "axe-core" / "axe.min.js")
    found = Sight(context.new_page())
    try:
        request = quote(json.dumps({"vcpus": 64, "required": ["HW_CPU_X86_AVX2"]}))
        found.open(f"{stack.address}/?host=host-20&request={request}")
        found.page.locator("#host h2", has_text="compute-000020").wait_for()
        found.page.locator("#fits .answer").wait_for()
        # Colours are the themes' alone; what else there is to find shows in one of them.
        rules = (
            "{}" if theme == "dark" else "{runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']}}"
        )
        others = ("Claims", "Drift", "Dead letters", "Sources", "Freshness") if theme == "dark" else ()
        for view in ("Map", "Table", *others):
            found.page.get_by_role("link", name=view).click()
            if view == "Table":
                found.page.locator("table.hosts tbody tr").nth(5).wait_for()
            elif view != "Map":
                found.page.locator("#page h2", has_text=view).wait_for()
            # After the first time what has not changed, the form and the host, is not looked at again.
            looked_at = "document" if view == "Map" else "{include: [['#head'], ['#views'], ['#work']]}"
            problems = found.page.evaluate(f"async () => (await axe.run({looked_at}, {rules})).violations")
            told = [(each["id"], [node["html"][:120] for node in each["nodes"][:3]]) for each in problems]
            assert told == [], view
    finally:
        context.close()
    assert found.faults == []


PICTURES = {
    "map-dark": ("dark", {}),
    "map-light": ("light", {"group": "source", "paint": "cpu_utilization"}),
    "fits-dark": ("dark", {"request": json.dumps({"vcpus": 64, "required": ["HW_CPU_X86_AVX2"]})}),
    "table-light": ("light", {"view": "table", "sort": "-vcpus_free", "only": "241"}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_it_looks_as_approved(browser: Browser, stack: Stack, name: str, tmp_path: Path) -> None:
    """VACANCY_REGENERATE_GOLDENS=1 approves what is there now: look at the pictures before you commit them."""
    theme, shown = PICTURES[name]
    context = browser.new_context(viewport={"width": 1100, "height": 700}, color_scheme=cast("Any", theme))
    found = Sight(context.new_page()).open(f"{stack.address}/?{urlencode(shown)}")
    try:
        if "request" in shown:
            found.wait("document.querySelector('#controls select').value === 'fits'")
        elif "view" in shown:
            found.wait("document.querySelector('table.hosts tbody tr:nth-child(2) td')?.textContent")
        else:
            found.wait("document.querySelectorAll('#legend button').length > 10")
        seen = tmp_path / f"{name}.png"
        approved = HERE / "pictures" / f"{name}.png"
        # Two looks at the same, since figures of others' tests may still be on their way.
        wait_until(lambda: _picture(found, seen) == _picture(found, seen), 30, "the page does not come to rest")
        if os.environ.get("VACANCY_REGENERATE_GOLDENS"):
            approved.write_bytes(seen.read_bytes())
        different = found.page.evaluate(DIFFERENCE, [_url(approved.read_bytes()), _url(seen.read_bytes())])
        assert different < 0.03, f"{different:.1%} of {seen} differ from {approved}"
    finally:
        context.close()
    assert found.faults == []


def _picture(sight: Sight, file: Path) -> bytes:
    """What the map or the table looks like, with its legend; ages and the head change each second."""
    return sight.page.locator("#work").screenshot(path=file)


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


DIFFERENCE = """async (urls) => {
  const pixels = await Promise.all(urls.map(async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  }));
  const [a, b] = pixels;
  if (a.width !== b.width || a.height !== b.height) return 1;
  let different = 0;
  for (let i = 0; i < a.data.length; i += 4) {
    // Edges of letters differ a little from one version of the browser to the next.
    const far = Math.max(...[0, 1, 2].map((k) => Math.abs(a.data[i + k] - b.data[i + k])));
    different += far > 48;
  }
  return different / (a.data.length / 4);
}"""
"""The share of pixels in which two pictures differ so that one sees it; 1: they have different sizes."""


def test_a_phone_gets_the_totals_and_the_table(browser: Browser, stack: Stack) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    found = Sight(context.new_page()).open(stack.address)
    try:
        found.page.locator("table.hosts tbody tr").nth(5).wait_for()
        # What somebody looks for comes first: figures, and why a host is out, of which the first words are in sight.
        for number, label, edge in ((3, "memory free", "right"), (4, "out because", "left + 80")):
            head = f"document.querySelector('table.hosts th:nth-child({number})')"
            assert found.ask(f"{head}.textContent") == label
            assert found.ask(f"{head}.getBoundingClientRect().{edge} <= innerWidth"), label
        for view in ("Table", "Sources", "Freshness"):
            found.page.get_by_role("link", name=view).click()
            found.page.get_by_role("link", name=view, exact=True).wait_for()
            assert found.ask("document.documentElement.scrollWidth <= innerWidth"), view
        # A name is read in one piece.
        request = json.dumps({"vcpus": 1, "max_age": "1 h"})
        with closing(stack.connect()) as connection:
            query(connection, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], %s)", request)
            found.page.get_by_role("link", name="Claims").click()
            claimed = found.page.locator("#page .list .link")
            claimed.wait_for()
            assert claimed.evaluate("(link) => link.getBoundingClientRect().height") < 30
            query(connection, "DELETE FROM vacancy.claim RETURNING 1")
    finally:
        context.close()
    assert found.faults == []


def test_the_server_answers_nobody_else(stack: Stack) -> None:
    def status(path: str, method: str = "GET", **headers: str) -> int:
        return ask(stack, path, method, **headers).status

    assert status("/") == 200
    assert status("/", Host="evil.example.org") == 421
    assert status("/api/frame", "POST") == 405
    assert status("/api/frame", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}) == 403
    assert status("/static/../server.py") == 404
    assert status("/static/%2e%2e/server.py") == 404
    assert status("/?" + "x" * 20_000) == 414
    assert status("/api/fits?request=%7B") == 400
    assert status("/api/host?id=nobody") == 404
    assert status("/api/host?id=%00") == 400
    policy = ask(stack, "/").headers["content-security-policy"]
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
