"""The weigher: ranks hosts by how full they measurably are.

    [filter_scheduler]
    weight_classes = nova.scheduler.weights.all_weighers, vacancy.nova.VacancyWeigher

A host's weight says how much emptier it is than the median of the known hosts, on a fixed scale: 0.1 is 10 % of a host,
or a tenth of a limit, in every request. A host without a fresh row weighs 0, and so do all hosts when the table cannot
be read. An aggregate's multiplier leaves 0 as it is.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

import nova.conf
from nova.scheduler import utils, weights

from vacancy.connectors.nova import options
from vacancy.connectors.nova.reading import amount, shared, total
from vacancy.connectors.nova.table import LOG
from vacancy.connectors.scheduler.ranking import fullness, with_typical

_CHANCE = 0.5
_MOST_CHANCE = 0.025
"""The scale of the noise that is added to a host's emptiness: _CHANCE times the share of the host that the request
takes, at most _MOST_CHANCE. A host that is fuller by one scale is picked 1/e times as often, so that schedulers which
read the same rows at the same moment do not all pick the same host (docs/decisions/0007)."""


class VacancyWeigher(weights.BaseHostWeigher):  # type: ignore[misc]  # nova has no annotations
    """Gives emptier hosts a higher weight; the module's docstring says how."""

    # With these bounds Nova uses the weights as they are, including negative ones.
    minval = 0.0
    maxval = 1.0

    def __init__(self) -> None:
        self._options = options.registered(nova.conf.CONF)

    def weight_multiplier(self, host_state: Any) -> float:
        """The aggregate's multiplier, or else that of the settings, as in Nova's own weighers."""
        multiplier: float = utils.get_weight_multiplier(
            host_state, "vacancy_weight_multiplier", self._options.weight_multiplier
        )
        return multiplier

    def _weigh_object(self, obj: Any, weight_properties: Any) -> float:
        return self.weigh_objects([weights.WeighedHost(obj, 0.0)], weight_properties)[0]

    def weigh_objects(self, weighed_obj_list: Sequence[Any], weight_properties: Any) -> list[float]:
        """The weights, in the order of the list; all 0 if anything goes wrong."""
        try:
            if utils.request_is_rebuild(weight_properties):
                return [0.0] * len(weighed_obj_list)  # a rebuilt instance stays on its host
            ours = self._weights([weighed.obj for weighed in weighed_obj_list], weight_properties)
            if self._options.compare_multiplier:
                self._compare(weighed_obj_list, ours, weight_properties)
        except Exception:  # noqa: BLE001  # an exception would fail the request
            LOG.exception("hosts are ranked without the table")
            shared().table.count(errors=1)
            return [0.0] * len(weighed_obj_list)
        return ours

    def _weights(self, host_states: Sequence[Any], spec: Any) -> list[float]:
        requests = shared()
        request = requests.of(spec, host_states)
        one, fresh = amount(spec), request.fresh(requests.max_age_s)
        rows = dict(zip(fresh, with_typical([row for row, _ in fresh.values()]), strict=True))
        known: list[tuple[float, float] | None] = []
        for state in host_states:
            row, age_s = rows.get(state.uuid), fresh.get(state.uuid, (None, 0.0))[1]
            machine = total(state)
            full = fullness(row, request.needs(state.uuid, one), machine, requests.limits) if row else None
            if full is None:
                known.append(None)
                continue
            share = max(one.vcpus / (machine.vcpus or 1), one.memory_mb / (machine.memory_mb or 1))
            empty = 1 - min(full[0], 1.0) + min(_CHANCE * share, _MOST_CHANCE) * _gumbel()
            known.append((empty, 1 - age_s / requests.max_age_s))
        if len(fresh) < len(request.rows):
            requests.table.count(hosts_stale=len(request.rows) - len(fresh))
        if not any(known):
            return [0.0] * len(host_states)
        median = statistics.median(value[0] for value in known if value)
        return [(value[0] - median) * value[1] if value else 0.0 for value in known]

    def _compare(self, weighed: Sequence[Any], ours: Sequence[float], spec: Any) -> None:
        """Logs which host wins and which would win with ``compare_multiplier``, given the earlier weighers' weights."""
        now = max(
            range(len(weighed)), key=lambda n: weighed[n].weight + self.weight_multiplier(weighed[n].obj) * ours[n]
        )
        then = max(range(len(weighed)), key=lambda n: weighed[n].weight + self._options.compare_multiplier * ours[n])
        LOG.info(
            "instance %s, %d hosts: %s %s (%+.3f), by vacancy %s (%+.3f)",
            spec.instance_uuid,
            len(weighed),
            "same" if now == then else "differs",
            weighed[now].obj.nodename,
            ours[now],
            weighed[then].obj.nodename,
            ours[then],
        )


def _gumbel() -> float:
    """A sample of the Gumbel distribution: with this noise a host wins with a probability ∝ exp(value / scale)."""
    return -math.log(-math.log(random.random() or 1e-300))  # noqa: S311  # chance, not a secret
