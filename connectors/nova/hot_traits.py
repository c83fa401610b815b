"""Keeps the trait CUSTOM_VACANCY_HOT on the resource providers of hot hosts in Placement.

For clouds where more hosts match a request than Placement returns to Nova (1,000): a weigher ranks only those, and a
flavor with ``trait:CUSTOM_VACANCY_HOT=forbidden`` keeps hot hosts from being among them. It reads ``[placement]`` of
nova.conf, as Nova does, and ``[vacancy]``. A cloud needs one. It changes nothing unless ``hot_trait_apply`` is set.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Any

from keystoneauth1 import exceptions, loading
from oslo_config import cfg

from vacancy.connectors.nova import options
from vacancy.connectors.nova.hysteresis import Flip, Hysteresis
from vacancy.connectors.scheduler.ranking import Amount, Limits, Measured, fullness

TRAIT = "CUSTOM_VACANCY_HOT"
LOG = logging.getLogger("vacancy.hot_traits")
_GROUP = "placement"
_CONNECTING_S = 10.0
_VERSION = {"OpenStack-API-Version": "placement 1.39"}
_TRIES = 4
"""Attempts per change: nova-compute writes to the same providers, and Placement refuses the later of two writers."""
_HOSTS = """
SELECT host_id, date_part('epoch', age), cpu_utilization, cpu_steal, cpu_pressure, memory_pressure, io_pressure,
  memory_mb_available, 0, (inventories->'VCPU'->>'total')::float8, (inventories->'MEMORY_MB'->>'total')::float8
FROM vacancy.schedulable_host
WHERE age < %s * interval '1 s'
"""


class Traits:
    """The trait in Placement.

    Args:
        adapter: keystoneauth's, for Placement.

    Every method raises:
        exceptions.ClientException: Placement cannot be reached, or refuses.
    """

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def hot(self) -> frozenset[str]:
        """The providers that have the trait; creates the trait if Placement does not have it."""
        self._call("PUT", f"/traits/{TRAIT}")
        answer = self._call("GET", f"/resource_providers?required={TRAIT}").json()
        return frozenset(provider["uuid"] for provider in answer["resource_providers"])

    def change(self, flip: Flip) -> bool:
        """Sets or clears this trait only; False: no such provider, or others keep changing the provider."""
        path = f"/resource_providers/{flip.host}/traits"
        for _ in range(_TRIES):
            answer = self._call("GET", path, 404)
            if answer.status_code == 404:
                return False
            had = answer.json()
            traits = set(had["traits"]) - {TRAIT} | ({TRAIT} if flip.hot else set())
            body = {
                "resource_provider_generation": had["resource_provider_generation"],
                "traits": sorted(traits),
            }
            if self._call("PUT", path, 409, json=body).status_code != 409:
                return True
        return False

    def _call(self, method: str, path: str, *statuses: int, **arguments: Any) -> Any:
        answer = self._adapter.request(path, method, headers=_VERSION, raise_exc=False, **arguments)
        if answer.status_code >= 400 and answer.status_code not in statuses:
            raise exceptions.http.from_response(answer, method, path)
        return answer


def hosts(dsn: str, max_age_s: float, limits: Limits) -> dict[str, float]:
    """The fullness of each host whose row is fresh.

    Raises:
        psycopg2.Error: the database does not answer.
    """
    # Imported here, so that `--help` works where psycopg2 is not installed yet.
    from vacancy.connectors.postgres.servers import Servers, set_local

    servers = Servers(dsn, writes=False, parameters={"application_name": "vacancy hot traits"})
    with closing(servers.connect(_CONNECTING_S)) as connection:
        connection.settings = set_local(statement_timeout="29 s", transaction_read_only="on")
        with connection.cursor() as cursor:
            cursor.execute(_HOSTS, (max_age_s,))
            found = {}
            for host, *figures, vcpus, memory_mb in cursor.fetchall():
                machine = Amount(vcpus or 0, memory_mb or 0)
                full = fullness(Measured(*figures), Amount(0, 0), machine, limits)
                if full is not None:
                    found[host] = full[0]
            return found


def turn(section: Any, traits: Traits, hysteresis: Hysteresis, now_s: float) -> int:
    """Does one round; returns the number of flips made, or in a dry run of those it would have made.

    Raises:
        psycopg2.Error, exceptions.ClientException: the round failed; each host has either its old or its new traits.
    """
    found = hosts(section.dsn or "", section.max_age, options.limits(section))
    hot = traits.hot()
    flips = hysteresis.flips(now_s, found, hot)
    made = 0
    for flip in flips:
        verb = "becomes hot" if flip.hot else "cools"
        if not section.hot_trait_apply:
            LOG.info("%s would change: %s, at %.2f of a limit (hot_trait_apply is off)", flip.host, verb, flip.fullness)
        elif traits.change(flip):
            LOG.info("%s %s, at %.2f of a limit", flip.host, verb, flip.fullness)
        else:
            LOG.warning("%s stays as it is: Placement has no such provider, or others keep changing it", flip.host)
            continue
        hysteresis.done(flip, now_s)
        made += 1
    LOG.info("%d hosts fresh, %d hot, %d changed", len(found), len(hot), made if section.hot_trait_apply else 0)
    return made


def clear(traits: Traits) -> int:
    """Removes the trait from all hosts that have it; returns how many.

    Raises:
        exceptions.ClientException: Placement cannot be reached, or refuses.
    """
    return sum(traits.change(Flip(host, False, 0.0)) for host in traits.hot())


def hysteresis_of(section: Any) -> Hysteresis:
    """A hysteresis as the options configure it."""
    return Hysteresis(
        section.hot_trait_after,
        section.hot_trait_clear_below,
        section.hot_trait_changes_per_hour,
        section.hot_trait_max_hosts,
    )


def settings(arguments: list[str]) -> Any:
    """Reads nova.conf and the command line."""
    conf = cfg.ConfigOpts()
    conf.register_cli_opt(
        cfg.BoolOpt("once", default=False, help="Do one round and end; use with hot_trait_after = 0.")
    )
    conf.register_cli_opt(cfg.BoolOpt("clear", default=False, help="Remove the trait from all hosts, and end."))
    options.registered(conf)
    for register in (
        loading.register_auth_conf_options,
        loading.register_session_conf_options,
        loading.register_adapter_conf_options,
    ):
        register(conf, _GROUP)
    conf(arguments, project="nova", prog="vacancy-hot-traits")
    return conf


def traits_of(conf: Any) -> Traits:
    """Connects to Placement as nova.conf says."""
    auth = loading.load_auth_from_conf_options(conf, _GROUP)
    session = loading.load_session_from_conf_options(conf, _GROUP, auth=auth)
    adapter = loading.load_adapter_from_conf_options(conf, _GROUP, session=session, auth=auth)
    adapter.service_type = adapter.service_type or "placement"
    return Traits(adapter)
