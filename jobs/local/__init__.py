"""The local stack: a broker, a database and their processes on this machine, for ``vacancy up``.

Nothing here is used where a deployment brings its own Kafka, Flink and PostgreSQL.
"""
