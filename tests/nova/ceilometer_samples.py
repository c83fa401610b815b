"""Publishes samples of an instance by Ceilometer's own publisher; for Ceilometer's environment, as a program.

In: transport_url, instance, host, volumes by meter. What its pollsters make them of is libvirt's, which is not here.
"""

from __future__ import annotations

import json
import sys
import types
from datetime import UTC, datetime
from urllib.parse import urlsplit

from ceilometer import service
from ceilometer.compute.pollsters import util
from ceilometer.publisher.messaging import SampleNotifierPublisher

TYPES = {"memory.resident": "gauge"}


def main() -> None:
    """Publishes."""
    given = json.load(sys.stdin)
    conf = service.prepare_service([], [])
    url = urlsplit(given["transport_url"])
    conf.set_override("telemetry_secret", "secret", "publisher")
    instance = types.SimpleNamespace(
        id=given["instance"], name="x", hostId="a hash", image=None, status="ACTIVE", user_id="u", tenant_id="t",
        metadata={}, flavor={"name": "m1", "vcpus": 1, "ram": 512, "disk": 4, "ephemeral": 0},
        **{"OS-EXT-SRV-ATTR:host": given["host"], "OS-EXT-SRV-ATTR:instance_name": "instance-1"},
    )  # fmt: skip
    samples = []
    for meter, volume in given["volumes"].items():
        device = {"disk": f"{instance.id}-vda", "network": f"instance-1-{instance.id}-tap0"}.get(
            meter.partition(".")[0]
        )
        sample = util.make_sample_from_instance(
            conf, instance, meter, TYPES.get(meter, "cumulative"), "unit", volume, resource_id=device
        )
        # As its polling manager does.
        sample.set_timestamp(datetime.now(UTC).replace(tzinfo=None).isoformat())
        samples.append(sample)
    SampleNotifierPublisher(conf, urlsplit(f"notifier://{url.netloc}/")).publish_samples(samples)


if __name__ == "__main__":
    main()
