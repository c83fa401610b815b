"""The Kafka side: client settings, topics, the producers of events, and Confluent's schema registry.

The contents of events are decided in ``schemas`` and by the reporters (``jobs/reporters``), not here.
"""
