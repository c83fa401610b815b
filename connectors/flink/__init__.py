"""The production edges of the dataflow: tables over Kafka topics, and the sink for PostgreSQL (in Java).

The dataflow between them is ``topology``; the jobs pass these edges to it.
"""
