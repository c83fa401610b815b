"""The Kafka side: client settings, topics, the producers of events, and Confluent's schema registry.

What an event contains is decided in ``schemas`` and by those who report hosts, not here.
"""
