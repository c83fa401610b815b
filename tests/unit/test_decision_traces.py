"""The generator of the experiment with old tables makes loads like the traces that it was fitted to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.decisions import traces

DOCUMENT = json.loads(traces.FITTED.read_text(encoding="utf-8"))
GENERATED = traces.generate(4_000, 288, seed=7)


@pytest.mark.parametrize("name", DOCUMENT["statistics"])
def test_what_is_generated_is_like_the_traces(name: str) -> None:
    measured, generated = DOCUMENT["statistics"][name], traces.statistics(GENERATED)[name]
    assert generated == pytest.approx(measured, rel=0.15, abs=0.005)


def test_levels_are_shares_and_differ_by_seed() -> None:
    assert GENERATED.min() >= 0
    assert GENERATED.max() <= 1
    assert np.array_equal(traces.generate(10, 20, seed=7), traces.generate(10, 20, seed=7))
    assert not np.array_equal(traces.generate(10, 20, seed=7), traces.generate(10, 20, seed=8))


def test_a_fit_to_what_was_generated_finds_what_made_it() -> None:
    fitted = traces.fit(GENERATED[:2_000])
    assert fitted["kept"] == pytest.approx(DOCUMENT["fit"]["kept"], abs=0.06)
    assert fitted["drifting"] == pytest.approx(DOCUMENT["fit"]["drifting"], abs=0.06)
