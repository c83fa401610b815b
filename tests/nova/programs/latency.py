"""The time in ms that the weigher adds to a request, by the number of hosts that pass the filters.

In: dsn; hosts, the numbers of hosts; requests, the number of requests for each.
"""

from __future__ import annotations

import json
import time

from nova.scheduler import weights

from tests.nova.programs import stage
from vacancy.connectors.nova import reading, weigher


def main() -> None:
    """Prints them."""
    given = stage.arguments()
    stage.configure(stage.vacancy(given["dsn"], max_age=10_000))
    ours, seen = weigher.VacancyWeigher(), []
    for count in given["hosts"]:
        reading.forget()
        states, took_ms = [stage.light_state(number) for number in range(1, count + 1)], []
        for number in range(given["requests"] + 5):
            weighed, spec = [weights.WeighedHost(one, 0.0) for one in states], stage.spec()
            began = time.perf_counter()
            ours.weigh_objects(weighed, spec)
            if number >= 5:  # the first requests connect and warm the server's caches
                took_ms.append(1e3 * (time.perf_counter() - began))
        seen.append({"took_ms": took_ms, "counts": dict(reading.shared().table.counts)})
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
