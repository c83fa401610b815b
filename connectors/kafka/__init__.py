"""Kafka: client settings, topics, the producers of events, log lines about delivery, and Confluent's schema registry.

The contents of events are decided in ``schemas`` and by the reporters in ``jobs``, not here.
"""
