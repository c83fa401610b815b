"""The filter: vetoes hosts that are beyond a limit. It is optional: the weigher already prefers all other hosts.

[filter_scheduler]
available_filters = nova.scheduler.filters.all_filters
available_filters = vacancy.nova.VacancyFilter
enabled_filters = ComputeFilter, ..., VacancyFilter
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import nova.conf
from nova.scheduler import filters, utils

from vacancy.connectors.nova import options
from vacancy.connectors.nova.reading import amount, shared
from vacancy.connectors.nova.table import LOG
from vacancy.connectors.scheduler.ranking import over_limit


class VacancyFilter(filters.BaseHostFilter):  # type: ignore[misc]  # nova has no annotations
    """Vetoes a host whose row says that it is beyond a limit; a host without a row, or with an old one, passes."""

    RUN_ON_REBUILD = False

    def __init__(self) -> None:
        self._options = options.registered(nova.conf.CONF)

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        """Whether one host passes; Nova itself calls :meth:`filter_all`."""
        return bool(self._passing([host_state], spec_obj))

    def filter_all(self, filter_obj_list: Iterable[Any], spec_obj: Any) -> list[Any]:
        """The hosts that pass; if anything goes wrong, all of them."""
        host_states = list(filter_obj_list)
        try:
            return self._passing(host_states, spec_obj)
        except Exception:  # noqa: BLE001  # an exception would fail the request
            LOG.exception("no host is vetoed")
            shared().table.count(errors=1)
            return host_states

    def _passing(self, host_states: list[Any], spec: Any) -> list[Any]:
        if not host_states or utils.request_is_rebuild(spec):
            return host_states
        requests = shared()
        request = requests.of(spec, host_states)
        one, fresh = amount(spec), request.fresh(requests.max_age_s)
        passing = []
        for state in host_states:
            row, _ = fresh.get(state.uuid, (None, 0.0))
            needs = request.needs(state.uuid, one)
            vetoed = row and over_limit(row, needs, requests.limits, self._options.min_memory_mb_available)
            if vetoed:
                LOG.debug("%s is vetoed: %s", state, vetoed)
            else:
                passing.append(state)
        if len(passing) < len(host_states):
            requests.table.count(vetoes=len(host_states) - len(passing))
        return passing
