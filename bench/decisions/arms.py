"""The arms of the experiment, and one run of an arm: a world, what its table shows, and the decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from bench.decisions import nova
from bench.decisions.reporting import LAG_S, Due, Reporter, each, each_and_instances, on_change
from bench.decisions.table import Table, sessions
from bench.decisions.world import Integers, Load, Reals, World

TICK_S = 5
"""Requests are decided each 5 s, by the table of that second; so a table is written once for several decisions."""
WARM_UP_S, MEASURED_S = 300, 600
NEXT_S = 60
"""How long the host of a decision is watched."""
BUSY = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Limits of a host's mean CPU demand in the next minute, as a share of its CPUs."""
PRESSED = 0.1
"""Limit of a host's mean memory pressure in the next minute."""


_USUAL = Load()


@dataclass(frozen=True)
class Arm:
    """One way to run the system.

    Attributes:
        name: its key in the results.
        due: makes the rule by which hosts report.
        age_s: the longest regular age of a row, for `max_age`.
        lag_s: from a report to its row.
        request: parts of each request.
        shrunk: a rule that claims do not have: an old figure counts as nearer to the fleet's mean (table.py).
        nova: decided by Nova's weighers over Placement's candidates, without the table.
    """

    name: str
    due: Callable[[], Due]
    age_s: int = 1
    lag_s: int = LAG_S
    window_s: int = 60
    request: dict[str, Any] = field(default_factory=dict)
    schedulers: int = 1
    counted: bool = True
    measured: bool = True
    shrunk: bool = False
    load: Load = _USUAL
    nova: bool = False


def interval(seconds: float, name: str = "", **options: Any) -> Arm:
    """Each host reports so often; 0.1 s stands for no age at all."""
    whole = max(1, int(seconds))
    window_s = max(options.pop("window_s", 60), whole)
    name = f"interval {seconds:g} s{', ' if name else ''}{name}"
    return Arm(name, lambda: each(whole), whole, 0 if seconds < 1 else LAG_S, window_s, **options)


def and_each_instance(seconds: int) -> Arm:
    """Each host reports so often, and at once when an instance comes or leaves, as the agent does."""
    return replace(interval(seconds, "and each instance"), due=lambda: each_and_instances(seconds))


def changes(tolerance: float, silence_s: int) -> Arm:
    """Each host looks each second and reports what has changed by more than a tolerance."""
    return Arm(f"on change {tolerance:g}, silence {silence_s} s", lambda: on_change(tolerance, silence_s), silence_s)


SILENCES = ((0.01, 10), (0.02, 10), (0.02, 30), (0.05, 30), (0.1, 60))
"""Tolerances, and the longest silences in seconds."""
_LOAD_ONLY = {"weights": {"vcpus": 0, "memory_mb": 0, "disk_gb": 0}}
_ALL = {"sample": 1_000_000}
_NO_AGE, _MUCH_AGE = {"weights": {"age": 0}}, {"weights": {"age": 1}}
_ROOMY, _FULL, _BRISK, _NOISY = Load(filled=0.7), Load(filled=0.95), Load(requests_per_s=0.02), Load(noise=0.15)
NOVA = Arm("Nova's weighers, 60 s", lambda: each_and_instances(60), 60, measured=False, nova=True)
CORE: tuple[Arm, ...] = (
    *(interval(seconds) for seconds in (1, 60, 300)),
    NOVA,
    interval(60, "promises only", measured=False, request={"weights": {"load": 0}}),
    changes(0.02, 30),
    interval(60, "claims not counted", counted=False),
    *(interval(seconds) for seconds in (0.1, 5, 10, 30)),
    *(changes(tolerance, silence_s) for tolerance, silence_s in SILENCES if (tolerance, silence_s) != (0.02, 30)),
    *(interval(seconds, "claims not counted", counted=False) for seconds in (1, 10, 300)),
    *(interval(seconds, "measures only", request=_LOAD_ONLY) for seconds in (1, 60, 300)),
    *(
        interval(seconds, f"sample {sample}", request={"sample": sample})
        for seconds in (1, 60)
        for sample in (1, 2, 8, 100)
    ),
)
"""What the question is about. In the order in which they run: the most telling first."""
MORE: tuple[Arm, ...] = (
    *(interval(seconds, "roomy", load=_ROOMY) for seconds in (1, 60, 300)),
    replace(NOVA, name="Nova's weighers, 60 s, roomy", load=_ROOMY),
    *(interval(seconds, "nearly full", load=_FULL) for seconds in (1, 60, 300)),
    interval(60, "nearly full, claims not counted", load=_FULL, counted=False),
    replace(NOVA, name="Nova's weighers, 60 s, nearly full", load=_FULL),
    *(
        interval(seconds, f"load weight {weight:g}", request={"weights": {"load": weight}})
        for seconds in (1, 60, 300)
        for weight in (0.5, 2, 4)
    ),
    interval(1, "load weight 0", request={"weights": {"load": 0}}),
    *(interval(1, f"window {window_s} s", window_s=window_s) for window_s in (5, 15, 300)),
    *(interval(seconds, "old figures shrunk", shrunk=True) for seconds in (60, 300)),
    *(interval(seconds, "age weight 0", request=_NO_AGE) for seconds in (60, 300)),
    *(interval(seconds, "age weight 1", request=_MUCH_AGE) for seconds in (60, 300)),
    *(interval(300, f"sample {sample}", request={"sample": sample}) for sample in (2, 8, 100)),
    *(and_each_instance(seconds) for seconds in (60, 300)),
    *(
        interval(seconds, strategy, request={"strategy": strategy})
        for seconds in (1, 60)
        for strategy in ("pack", "random")
    ),
    *(interval(seconds, "16 schedulers", schedulers=16) for seconds in (1, 60)),
    *(interval(seconds, "sample all", request=_ALL) for seconds in (1, 60)),
    interval(60, "sample all, claims not counted", request=_ALL, counted=False),
    interval(1, "sample all, 16 schedulers", request=_ALL, schedulers=16),
    *(interval(seconds, "at most 0.7 busy", request={"max_cpu_utilization": 0.7}) for seconds in (1, 60, 300)),
    *(interval(seconds, "four times the boots", load=_BRISK) for seconds in (1, 60, 300)),
    interval(60, "four times the boots, claims not counted", load=_BRISK, counted=False),
    *(interval(seconds, "noise 0.15", load=_NOISY) for seconds in (1, 10, 60)),
)
ARMS = CORE + MORE


@dataclass
class Decided:
    """A decision whose host is watched."""

    host: int
    at: int


class Decider(Protocol):
    """A table of a world, and claims on it."""

    def second(self, reporter: Reporter) -> None:
        """A second has passed, and hosts have reported."""

    def write(self, reporter: Reporter) -> None:
        """Before decisions: the table says what it shows now."""

    def decide(self, instances: Sequence[int]) -> Iterable[tuple[int, int | None]]:
        """Claims for instances: each with its host, or None where it was refused."""

    def release(self, instances: Integers) -> None:
        """Gives back what instances have claimed that are gone."""


def run(
    arm: Arm, dsn: str | None, hosts: int, levels: Reals, seed: int, measured_s: int = MEASURED_S
) -> dict[str, float]:
    """One run of an arm in simulated time, on a database with Vacancy's tables; Nova's arm needs none."""
    made = Run(arm, hosts, levels, seed, measured_s=measured_s)
    if dsn is None:
        return made.result(None)
    with sessions(dsn, arm.schedulers) as connections:
        table = Table(
            connections, made.world, made.request, measured=arm.measured, counted=arm.counted, shrunk=arm.shrunk
        )
        return made.result(table)


class Run:
    """One run of an arm with a seed.

    Args:
        levels: of instances (traces.py).

    Attributes:
        world: the fleet.
        request: what each request has beside its amounts.
    """

    def __init__(self, arm: Arm, hosts: int, levels: Reals, seed: int, *, measured_s: int = MEASURED_S) -> None:
        self._asked_until = WARM_UP_S + measured_s
        self.world = World(hosts, levels, self._asked_until, seed, arm.load)
        self.request = {"max_age": f"{max(30, 3 * arm.age_s)} s", "claim_ttl": "1 d", **arm.request}
        self._reporter = Reporter(self.world, arm.due(), window_s=arm.window_s, lag_s=arm.lag_s)
        self._next: list[Decided] = []
        self._count = dict.fromkeys(("asked", "refused", "refused_with_room", "turned_out_full"), 0)
        self._after: list[list[float]] = []  # CPU, memory pressure and steal of the chosen host in the next minute
        self._regret: list[float] = []
        self._spread: list[float] = []
        self._fleet: list[tuple[float, ...]] = []
        self._error: list[float] = []
        self._claims_s = 0.0
        self._picked: list[int] = []

    def result(self, table: Decider | None) -> dict[str, float]:
        """Runs it; the figures of the decisions made after the warm-up. Without a table Nova's weighers decide."""
        began_s = time.perf_counter()
        while self.world.now < self._asked_until + NEXT_S:
            _, left = self.world.advance()
            self._reporter.advance()
            if table:
                table.second(self._reporter)
                table.release(left)
            if self.world.now % TICK_S == 0:
                self._tick(table)
        self._took_s = time.perf_counter() - began_s
        return self._figures()

    def _tick(self, table: Decider | None) -> None:
        world = self.world
        self._look_back()
        if WARM_UP_S <= world.now < self._asked_until and world.now % 30 == 0:
            used = world.mean("cpu", NEXT_S)
            self._spread.append(float(np.quantile(used, 0.99) / used.mean()))
            self._fleet.append((float(used.mean()), *(float((used > limit).mean()) for limit in BUSY)))
            self._error.append(float(np.abs(self._reporter.shown.cpu_utilization - world.mean("used", NEXT_S)).mean()))
        asked = world.requests().tolist()
        if not asked:
            return
        began_s = time.perf_counter()
        if table:
            table.write(self._reporter)
        decisions: Iterable[tuple[int, int | None]] = table.decide(asked) if table else self._nova(asked)
        for instance, host in decisions:
            self._note(instance, host, table)
        self._claims_s += time.perf_counter() - began_s

    def _nova(self, asked: list[int]) -> Iterable[tuple[int, int | None]]:
        """Nova writes a host's record each minute and when an instance starts; its scheduler adds its own picks."""
        world, shown = self.world, self._reporter.shown
        held = shown.counted + world.allocated - world.counted
        for instance in asked:
            fits = (world.allocated + world.amounts[instance] <= world.capacity).all(axis=1)
            host = nova.choose(fits, world.capacity - held, held[:, 1].astype(float), world.memory_mb, world.starting)
            yield instance, host
            if host is not None:
                held[host] += world.amounts[instance]

    def _note(self, instance: int, host: int | None, table: Decider | None) -> None:
        world = self.world
        counts = world.now >= WARM_UP_S
        self._count["asked"] += counts
        room = world.room(instance) if counts else None
        if host is None:
            self._count["refused"] += counts
            self._count["refused_with_room"] += room is not None and bool(room.any())
            return
        least = float(world.cpu[room].min()) if room is not None and room.any() else None
        if not world.place(instance, host):
            self._count["turned_out_full"] += counts
            if table:
                table.release(np.array([instance]))
            return
        if counts:
            if least is not None:
                self._regret.append(float(world.cpu[host]) - least)
            self._picked.append(host)
            self._next.append(Decided(host, world.now))

    def _look_back(self) -> None:
        """What the hosts of decisions that were made a minute ago have done since."""
        while self._next and self._next[0].at <= self.world.now - NEXT_S:
            host = np.array([self._next.pop(0).host])
            self._after.append(
                [float(self.world.mean(name, NEXT_S, host)[0]) for name in ("cpu", "memory_pressure", "steal")]
            )

    def _figures(self) -> dict[str, float]:
        cpu, pressure, steal = np.array(self._after).reshape(-1, 3).T
        fleet = np.array(self._fleet).mean(axis=0)
        regret = np.array(self._regret)
        asked = max(1, self._count["asked"])
        figures = {
            **self._count,
            **{f"busy_{limit:g}": float((cpu > limit).mean()) for limit in BUSY},
            "memory_pressed": float((pressure > PRESSED).mean()),
            "busy_or_pressed": float(((cpu > 0.8) | (pressure > PRESSED)).mean()),
            "cpu_next_minute": float(cpu.mean()),
            "cpu_next_minute_p99": float(np.quantile(cpu, 0.99)),
            "regret": float(regret.mean()),
            "refused_with_room_share": self._count["refused_with_room"] / asked,
            "turned_out_full_share": self._count["turned_out_full"] / asked,
            "steal": float(steal.mean()),
            "steal_felt": float((steal > 0.01).mean()),
            "spread_p99_over_mean": float(np.mean(self._spread)),
            "fleet_cpu": float(fleet[0]),
            **{f"fleet_busy_{limit:g}": float(share) for limit, share in zip(BUSY, fleet[1:], strict=True)},
            "row_error": float(np.mean(self._error)),
            "events_a_host_s": self._reporter.reports / self.world.hosts / self.world.now,
            "most_on_one_host": float(np.bincount(self._picked).max()) if self._picked else 0.0,
            "took_s": round(self._took_s, 1),
            "deciding_s": round(self._claims_s, 1),
        }
        return {name: round(float(value), 6) for name, value in figures.items()}
