"""How busy instances are: measured traces, and a generator fitted to them, which needs no traces.

Both give ``levels``: a row an instance, a column a step of 5 minutes, the share of its own VCPUs that it uses, 0 to
1.

The generator is a Gaussian copula. An instance has a level that it keeps, a part that drifts over hours, and a part
that is drawn anew each step, with a deviation of the instance's own; the sum goes through the distribution of all
measured values. What it was fitted to is in ``planetlab.json``, beside the statistics of the traces, and
tests/unit/test_decision_traces.py compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

STEP_S = 300
FITTED = Path(__file__).with_name("planetlab.json")
KEPT_A_STEP = 0.72
"""The autocorrelation of the traces from one step to the next (planetlab.json); for hours it stays there."""
_LAGS = (1, 12, 144)
_NORMAL = NormalDist()
_GRID = np.linspace(-6, 6, 2_401)
_NORMAL_CDF = np.array([_NORMAL.cdf(value) for value in _GRID])


def load(file: Path) -> Reals:
    """The levels in a file with `cpu_percent`: instances by steps, in percent."""
    with np.load(file) as traces:
        return np.asarray(traces["cpu_percent"] / 100.0)


def statistics(levels: Reals) -> dict[str, float]:
    """What is compared: the distribution, how much instances differ, and how much each one moves."""
    centred, variance = levels - levels.mean(), levels.var()
    means, moves = levels.mean(axis=1), np.abs(np.diff(levels, axis=1))
    return {
        "mean": float(levels.mean()),
        "p50": float(np.quantile(levels, 0.5)),
        "p90": float(np.quantile(levels, 0.9)),
        "p99": float(np.quantile(levels, 0.99)),
        "deviation_between_instances": float(means.std()),
        "deviation_within_instances": float(np.sqrt(levels.var(axis=1).mean())),
        "move_mean": float(moves.mean()),
        "move_p90": float(np.quantile(moves, 0.9)),
        "move_p99": float(np.quantile(moves, 0.99)),
        **{f"autocorrelation_{lag}": float((centred[:, :-lag] * centred[:, lag:]).mean() / variance) for lag in _LAGS},
    }


def fit(levels: Reals) -> dict[str, Any]:
    """What `generate` needs, from traces."""
    latent = _normal_scores(levels)
    deviations = np.sqrt(np.maximum((np.diff(latent, axis=1) ** 2).mean(axis=1) / 2, 1e-4))
    lower, upper = np.quantile(np.log(deviations), (0.25, 0.75))
    fitted: dict[str, Any] = {
        "quantiles": [round(float(value), 4) for value in np.quantile(levels, _QUANTILES)],
        "kept": 0.6,
        "drifting": 0.1,
        "drift_kept_a_step": round(0.5 ** (1 / 144), 5),
        "log_deviation_of_deviations": round(float(upper - lower) / 1.349, 4),
    }
    # The correlations of levels are not those of the latent values: the two shares move until the generated ones agree.
    wanted = statistics(levels)
    for _ in range(12):
        found = statistics(generate(4_000, levels.shape[1], 1, fitted))
        off = {lag: wanted[f"autocorrelation_{lag}"] - found[f"autocorrelation_{lag}"] for lag in _LAGS}
        fitted["kept"] = round(fitted["kept"] + 0.8 * (2 * off[144] - off[1]), 4)
        fitted["drifting"] = round(max(0.0, fitted["drifting"] + 0.8 * 2 * (off[1] - off[144])), 4)
    return fitted


def generate(instances: int, steps: int, seed: int, fitted: dict[str, Any] | None = None) -> Reals:
    """Levels of so many instances; equal arguments give equal levels."""
    fitted = fitted or json.loads(FITTED.read_text(encoding="utf-8"))["fit"]
    chance = np.random.default_rng([seed, 5])
    drift = np.empty((instances, steps))
    drift[:, 0] = chance.standard_normal(instances)
    keeps = fitted["drift_kept_a_step"]
    for step in range(1, steps):
        drift[:, step] = keeps * drift[:, step - 1] + np.sqrt(1 - keeps**2) * chance.standard_normal(instances)
    anew = 1 - fitted["kept"] - fitted["drifting"]
    spread = fitted["log_deviation_of_deviations"]
    own_deviation = np.exp(spread * chance.standard_normal(instances) - spread**2)  # its mean square is 1
    latent = (
        np.sqrt(fitted["kept"]) * chance.standard_normal(instances)[:, None]
        + np.sqrt(fitted["drifting"]) * drift
        + np.sqrt(anew) * own_deviation[:, None] * chance.standard_normal((instances, steps))
    )
    return np.interp(np.interp(latent, _GRID, _NORMAL_CDF), _QUANTILES, fitted["quantiles"])


_QUANTILES = np.concatenate([np.linspace(0, 0.9, 37), np.linspace(0.91, 0.99, 9), [0.995, 0.998, 0.999, 1]])


def _normal_scores(levels: Reals) -> Reals:
    """The levels, each replaced by the mean of the standard normal values that its rank stands for."""
    _, place, counts = np.unique(levels, return_inverse=True, return_counts=True)
    above = np.cumsum(counts) / levels.size
    density = np.array([_NORMAL.pdf(_NORMAL.inv_cdf(share)) if 0 < share < 1 else 0.0 for share in [0.0, *above]])
    density[np.isclose([0.0, *above], 1)] = 0
    scores = (density[:-1] - density[1:]) / (counts / levels.size)
    return np.asarray(scores[place.reshape(levels.shape)])
