"""The edges: host collectors, Kafka and PostgreSQL."""
