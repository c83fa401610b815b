"""Publishes samples of an instance with Ceilometer's own publisher; a program for Ceilometer's environment.

In: transport_url, instance, host, volumes by meter. Ceilometer's pollsters would read them from libvirt.
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
        # Like Ceilometer's polling manager.
        sample.set_timestamp(datetime.now(UTC).replace(tzinfo=None).isoformat())
        samples.append(sample)
    SampleNotifierPublisher(conf, urlsplit(f"notifier://{url.netloc}/")).publish_samples(samples)


if __name__ == "__main__":
    main()
