"""The histogram counts like Prometheus's histograms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.scheduler.histogram import BOUNDS_S, Histogram


@given(st.lists(st.one_of(st.floats(0, 30), st.sampled_from(BOUNDS_S))))
def test_each_bucket_has_all_that_is_at_most_its_bound(durations: list[float]) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    expected = [sum(seconds <= bound for seconds in durations) for bound in BOUNDS_S]
    assert histogram.at_most() == [*expected, len(durations)]
    assert histogram.seconds == pytest.approx(sum(durations))
