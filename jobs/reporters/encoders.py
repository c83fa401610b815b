"""The encoders of a reporter's events."""

from __future__ import annotations

import logging
import random

from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.codec import Encoder
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import Event

_REGISTRY_RETRY_S = 5.0
_LOG = logging.getLogger("vacancy.agent")


def make_encoders(settings: KafkaSettings, stop: StopSignal) -> dict[Event, Encoder] | None:
    """An encoder for each kind of event; waits for the schema registry, if there is one. None: stopped before that."""
    if settings.schema_registry_url is None:
        return {event: Encoder(event) for event in Event}
    from vacancy.connectors.kafka.schema_registry import Registry

    registry = Registry(settings.schema_registry_url)
    topics = {Event.USAGE: settings.usage_topic, Event.INVENTORY: settings.inventory_topic}
    failing = False
    while not stop.is_set():
        try:
            return {event: Encoder(event, registry.register(event, topic)) for event, topic in topics.items()}
        except VacancyError as error:
            if not failing:
                _LOG.warning("%s; waiting for it", error)
            failing = True
            stop.wait(random.uniform(0.5, 1.5) * _REGISTRY_RETRY_S)  # noqa: S311  # spreads a fleet's retries; not security
    return None
