"""The local stack: a broker, a database and their processes on this machine, for ``vacancy up``.

A deployment with its own Kafka, Flink and PostgreSQL uses nothing of it.
"""
