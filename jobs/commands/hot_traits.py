"""`vacancy-hot-traits`: keeps the trait of hot hosts in Placement; runs in Nova's environment.

Nova's environment has neither click nor pydantic, so the options are oslo.config's. The help needs nothing else.
"""

from __future__ import annotations

import logging
import sys
import time

from vacancy.jobs.signals import StopSignal

_LOG = logging.getLogger("vacancy.hot_traits")


def main() -> None:
    """Runs rounds until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        _run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vacancy"):
            raise
        sys.exit(
            f"vacancy-hot-traits: {error.name} is not installed; install Vacancy into Nova's environment, "
            "with psycopg2-binary (docs/nova.md)"
        )


def _run(arguments: list[str]) -> None:
    # Imported here, so that what is missing is said in one line.
    from vacancy.connectors.nova import options
    from vacancy.connectors.nova.hot_traits import clear, hysteresis_of, settings, traits_of, turn

    conf = settings(arguments)
    import psycopg2
    from keystoneauth1 import exceptions

    from vacancy.connectors.nova.table import reason

    section = conf[options.GROUP]
    hysteresis, traits = hysteresis_of(section), traits_of(conf)
    if conf.clear:
        try:
            _LOG.info("%d hosts have lost the trait", clear(traits))
        except exceptions.ClientException as error:
            sys.exit(f"vacancy-hot-traits: {error}; look at [placement] in nova.conf, and run it again")
        return
    failed = False
    with StopSignal() as stop:
        while not stop.is_set():
            try:
                turn(section, traits, hysteresis, time.monotonic())
                failed = False
            except (psycopg2.Error, exceptions.ClientException) as error:
                failed = True
                what = reason(error) if isinstance(error, psycopg2.Error) else error
                _LOG.warning("the round was broken off; the next one goes on: %s", what)
            if conf.once:
                sys.exit(int(failed))
            stop.wait(section.hot_trait_interval)


if __name__ == "__main__":
    main()
