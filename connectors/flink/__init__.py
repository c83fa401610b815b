"""The production edges of the dataflow: tables over Kafka topics, and the sink for PostgreSQL (in Java).

The dataflow between them is ``topology``, which gets these edges handed in.
"""
