"""The section ``[vacancy]`` of nova.conf."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from vacancy.connectors.scheduler.ranking import Limits

GROUP = "vacancy"
_DEFAULTS = Limits()
OPTIONS = [
    cfg.StrOpt(
        "dsn",
        secret=True,
        help="libpq's connection string (URI or key=value) of a login in the role vacancy_scheduler. With several hosts"
        " (host=a,b) the one that takes writes is used. The environment"
        " variables of libpq and ~/.pgpass apply as well.",
    ),
    cfg.FloatOpt(
        "weight_multiplier",
        default=10.0,
        help="Weight of an idle host minus that of a full one. Nova's own weighers for CPU, RAM and disk add at most 1"
        " each. 0: the weigher only watches. The aggregate metadata key vacancy_weight_multiplier has precedence.",
    ),
    cfg.FloatOpt(
        "compare_multiplier",
        default=0.0,
        min=0.0,
        help="Above 0: log for each request the host that wins with weight_multiplier and the one that would win with"
        " this multiplier. The weigher must be the last in weight_classes.",
    ),
    cfg.FloatOpt(
        "timeout", default=0.05, min=0.001, max=5.0, help="Longest time that a request waits for the table, in seconds."
    ),
    cfg.FloatOpt(
        "max_age",
        default=30.0,
        min=0.1,
        help="Age in seconds from which a row is ignored. The older a row is, the less it counts.",
    ),
    cfg.IntOpt(
        "pick_ttl",
        default=120,
        min=0,
        help="Seconds for which a pick counts against its host in all schedulers, unless the host reports the instance"
        " earlier. 0: picks are not recorded.",
    ),
    cfg.FloatOpt(
        "max_cpu_utilization",
        default=_DEFAULTS.cpu_utilization,
        min=0.01,
        help="Busy fraction of all CPUs at which a host counts as full. The filter vetoes hosts above it. The next four"
        " options work the same way.",
    ),
    cfg.FloatOpt("max_cpu_steal", default=_DEFAULTS.cpu_steal, min=0.001, help="Fraction of CPU time that is stolen."),
    cfg.FloatOpt(
        "max_cpu_pressure",
        default=_DEFAULTS.cpu_pressure,
        min=0.001,
        help="Fraction of time that a task waits for a CPU.",
    ),
    cfg.FloatOpt(
        "max_memory_pressure",
        default=_DEFAULTS.memory_pressure,
        min=0.001,
        help="Fraction of time that a task waits for memory.",
    ),
    cfg.FloatOpt(
        "max_io_pressure", default=_DEFAULTS.io_pressure, min=0.001, help="Fraction of time that a task waits for I/O."
    ),
    cfg.IntOpt(
        "min_memory_mb_available",
        default=0,
        help="The filter vetoes hosts on which fewer MiB of memory would be available after the request. Requests for"
        " huge pages take none of this memory.",
    ),
    cfg.FloatOpt("hot_trait_interval", default=60.0, min=1.0, help="Seconds between two rounds of vacancy-hot-traits."),
    cfg.BoolOpt(
        "hot_trait_apply",
        default=False,
        help="Whether vacancy-hot-traits changes traits, or only logs what it would change.",
    ),
    cfg.FloatOpt(
        "hot_trait_after",
        default=120.0,
        min=0.0,
        help="Seconds that a host must be at a limit to get the trait, and below hot_trait_clear_below to lose it.",
    ),
    cfg.FloatOpt(
        "hot_trait_clear_below",
        default=0.7,
        min=0.0,
        max=1.0,
        help="A hot host cools below this fullness, where 1 is at a limit.",
    ),
    cfg.IntOpt("hot_trait_changes_per_hour", default=4, min=1, help="Most changes of one host's trait in an hour."),
    cfg.FloatOpt(
        "hot_trait_max_hosts",
        default=0.2,
        min=0.0,
        max=1.0,
        help="Fraction of the hosts that may have the trait; the fullest come first.",
    ),
]


def list_opts() -> list[tuple[str, list[Any]]]:
    """The options for oslo-config-generator and oslo-config-validator (entry point ``oslo.config.opts``)."""
    return [(GROUP, OPTIONS)]


def registered(conf: Any) -> Any:
    """Registers the options and returns the section's values; calling it again is harmless."""
    conf.register_opts(OPTIONS, group=GROUP)
    return conf[GROUP]


def limits(section: Any) -> Limits:
    """The limits that the options set."""
    return Limits(
        cpu_utilization=section.max_cpu_utilization,
        cpu_steal=section.max_cpu_steal,
        cpu_pressure=section.max_cpu_pressure,
        memory_pressure=section.max_memory_pressure,
        io_pressure=section.max_io_pressure,
    )
