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
        help="libpq's connection string (URI or key=value) of a login in the role vacancy_scheduler. Name the server by"
        " its address (hostaddr=...): while libpq waits for a name server it heeds no time-out. The environment"
        " variables of libpq and ~/.pgpass hold as well.",
    ),
    cfg.FloatOpt(
        "weight_multiplier",
        default=10.0,
        help="How much the weigher counts: a host that is really empty is worth this much more than one that is full."
        " Nova's own weighers for CPU, RAM and disk are worth 1 each at most. 0: it only watches."
        " The aggregate metadata key vacancy_weight_multiplier has precedence.",
    ),
    cfg.FloatOpt(
        "compare_multiplier",
        default=0.0,
        min=0.0,
        help="Above 0: for each request log the host that wins with weight_multiplier and the one that would win with"
        " this. The weigher has to be the last in weight_classes.",
    ),
    cfg.FloatOpt(
        "timeout", default=0.05, min=0.001, max=5.0, help="Seconds that a request waits for the table at most."
    ),
    cfg.FloatOpt(
        "max_age",
        default=30.0,
        min=0.1,
        help="Seconds. The older a row the less it counts; from this age on it does not count at all.",
    ),
    cfg.IntOpt(
        "pick_ttl",
        default=120,
        min=0,
        help="Seconds that a pick counts against its host for all schedulers until the host itself shows the instance."
        " 0: picks are not noted.",
    ),
    cfg.FloatOpt(
        "max_cpu_utilization",
        default=_DEFAULTS.cpu_utilization,
        min=0.01,
        help="Fraction of all CPUs busy from which on a host counts as full. The filter vetoes what is above; so with"
        " the four below.",
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
        help="MiB that the kernel has to have left after the request, for the filter. Requests for huge pages take"
        " none of it.",
    ),
    cfg.FloatOpt("hot_trait_interval", default=60.0, min=1.0, help="Seconds between two rounds of vacancy-hot-traits."),
    cfg.BoolOpt(
        "hot_trait_apply", default=False, help="Whether vacancy-hot-traits changes traits, or only logs what it would."
    ),
    cfg.FloatOpt(
        "hot_trait_after",
        default=120.0,
        min=0.0,
        help="Seconds that a host has to be at a limit to get the trait, and below hot_trait_clear_below to lose it.",
    ),
    cfg.FloatOpt(
        "hot_trait_clear_below",
        default=0.7,
        min=0.0,
        max=1.0,
        help="A hot host cools below this fullness, where 1 is at a limit.",
    ),
    cfg.IntOpt(
        "hot_trait_changes_per_hour", default=4, min=1, help="Changes of the trait of one host in an hour at most."
    ),
    cfg.FloatOpt(
        "hot_trait_max_hosts",
        default=0.2,
        min=0.0,
        max=1.0,
        help="Fraction of the hosts that may have the trait; the fullest come first.",
    ),
]


def list_opts() -> list[tuple[str, list[Any]]]:
    """For oslo-config-generator and oslo-config-validator, by the entry point ``oslo.config.opts``."""
    return [(GROUP, OPTIONS)]


def registered(conf: Any) -> Any:
    """The section's values; more than once is harmless."""
    conf.register_opts(OPTIONS, group=GROUP)
    return conf[GROUP]


def limits(section: Any) -> Limits:
    """What the options say of limits."""
    return Limits(
        cpu_utilization=section.max_cpu_utilization,
        cpu_steal=section.max_cpu_steal,
        cpu_pressure=section.max_cpu_pressure,
        memory_pressure=section.max_memory_pressure,
        io_pressure=section.max_io_pressure,
    )
