"""Without a single point of failure: each part that may die, once, under load, and what was promised is kept.

The system takes a minute to start and each fault up to one, so VACANCY_TEST_HA=1 asks for it. `tests.faults.ha_faults`
does each fault several times, or at random for an hour, and writes the figures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.faults.ha_faults import FAULTS, SILENT_SECONDS, go_through
from tests.harness.ha import HighlyAvailable

pytestmark = [
    pytest.mark.skipif(not os.environ.get("VACANCY_TEST_HA"), reason="takes ten minutes; VACANCY_TEST_HA=1 runs it"),
    pytest.mark.timeout(600),
]
HOSTS = int(os.environ.get("VACANCY_TEST_HOSTS", "200"))
CLAIMERS = 4


@pytest.fixture(scope="module")
def live() -> Iterator[HighlyAvailable]:
    """The system; at the end, at rest, it has lost nothing."""
    with HighlyAvailable(HOSTS, CLAIMERS) as system:
        yield system
        system.claims.stop()
        assert not system.claims.faults(system.pair.primary.owner_dsn)
        system.verify_at_rest()


@pytest.mark.parametrize("fault", FAULTS)
def test_rows_and_claims_come_right_again(
    live: HighlyAvailable, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table equals the oracle, and no acknowledged claim is lost or counts twice; go_through() compares."""
    if "silent" in fault and not (os.geteuid() == 0 and shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")):
        pytest.skip("dropping packets takes root and nftables")
    restarts = live.status().restarts
    cost = go_through(live, fault)
    with capsys.disabled():
        print(f"\n{fault}: {cost}")
    if fault in ("primary killed, standby promoted", "PostgreSQL switched over"):
        assert live.status().restarts == restarts, "the job restarted, where its sink waits for the promotion"
    if fault == "network of a broker silent for 30 s":
        assert cost.rows_after_s < SILENT_SECONDS, "nothing went on before the network was back"
