"""Rounds of vacancy-hot-traits with a real Placement and a clock that is advanced by hand.

In: dsn, of a database whose hosts 1 to 20 are idle; placement, its URL.
"""

from __future__ import annotations

import json
import logging
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from tests.nova.programs.stage import host_id
from vacancy.connectors.nova import hot_traits


def main() -> None:
    """Prints the hosts that have the trait, by step."""
    given = json.load(open(0))  # noqa: SIM115  # stdin
    logging.basicConfig(level=logging.WARNING)
    seen: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        for apply in (False, True):
            file = Path(directory, f"{apply}.conf")
            file.write_text(
                f"[vacancy]\ndsn = {given['dsn']}\nmax_age = 3600\nhot_trait_apply = {apply}\n[placement]\n"
                f"auth_type = admin_token\nendpoint = {given['placement']}\ntoken = admin\n"
                f"endpoint_override = {given['placement']}\n",
                encoding="utf-8",
            )
        with closing(psycopg2.connect(given["dsn"])) as connection:
            connection.autocommit = True
            dry = hot_traits.settings(["--config-file", str(Path(directory, "False.conf"))])
            wet = hot_traits.settings(["--config-file", str(Path(directory, "True.conf"))])
            _rounds(dry, wet, connection.cursor(), seen)
    print(json.dumps(seen))


def _rounds(dry: Any, wet: Any, cursor: Any, seen: dict[str, Any]) -> None:
    traits, now_s = hot_traits.traits_of(wet), 0.0
    hysteresis = hot_traits.hysteresis_of(dry.vacancy)

    def turn(conf: Any, later_s: float) -> list[int]:
        """Runs a round after a time; returns the numbers of the hosts that have the trait then."""
        nonlocal now_s
        now_s += later_s
        hot_traits.turn(conf.vacancy, traits, hysteresis, now_s)
        return sorted(int(host[-12:]) for host in traits.hot())

    def steal(value: float, *hosts: int) -> None:
        ids = [host_id(number) for number in hosts]
        cursor.execute("UPDATE vacancy.host SET cpu_steal = %s WHERE host_id = ANY(%s)", (value, ids))

    steal(0.3, 1, 2)
    turn(dry, 0)
    seen["dry run"] = turn(dry, 130)

    hysteresis = hot_traits.hysteresis_of(wet.vacancy)
    seen["at once"] = turn(wet, 10)
    plain = traits._adapter.request
    meddled: list[str] = []

    def meddling(path: str, method: str, **arguments: Any) -> Any:
        """Writes to the provider between the read and the write of vacancy-hot-traits, as nova-compute may do."""
        if method == "PUT" and path.endswith("/traits") and not meddled:
            meddled.append(path)
            plain("/traits/CUSTOM_OTHER", "PUT", headers=hot_traits._VERSION)
            body = dict(arguments["json"], traits=["CUSTOM_OTHER", "OWNER_NOVA"])
            plain(path, "PUT", headers=hot_traits._VERSION, json=body)
        return plain(path, method, **arguments)

    traits._adapter.request = meddling
    seen["after a while"] = turn(wet, 130)
    traits._adapter.request = plain
    answer = plain(meddled[0], "GET", headers=hot_traits._VERSION).json()
    seen["traits"] = sorted(answer["traits"])

    steal(0.0, 1, 2)
    seen["cool at once"] = turn(wet, 10)
    seen["cool after a while"] = turn(wet, 130)

    steal(0.3, *range(1, 21))
    turn(wet, 10)
    seen["all of them hot"] = turn(wet, 130)
    steal(0.0, *range(1, 21))
    turn(wet, 10)
    turn(wet, 130)

    flips, before = 0, turn(wet, 3600)
    for number in range(12):
        steal(0.3 * (number % 2 == 0), 1)
        turn(wet, 10)
        after = turn(wet, 130)
        flips += after != before
        before = after
    seen["flips of one host in 28 minutes"] = flips

    steal(0.0, 1)
    cursor.execute("UPDATE vacancy.host SET host_id = 'stranger' WHERE host_id = %s", (host_id(20),))
    cursor.execute("UPDATE vacancy.host_inventory SET host_id = 'stranger' WHERE host_id = %s", (host_id(20),))
    cursor.execute("UPDATE vacancy.host SET cpu_steal = 0.3 WHERE host_id = 'stranger'")
    turn(wet, 3600)
    turn(wet, 10)
    seen["no such provider"] = turn(wet, 130)

    steal(0.3, 2, 3)
    turn(wet, 10)
    turn(wet, 130)
    seen["cleared"] = [hot_traits.clear(traits), len(traits.hot())]


if __name__ == "__main__":
    main()
