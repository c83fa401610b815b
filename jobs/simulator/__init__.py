"""A simulated fleet: its hosts as columns of numbers, and the delivery of their events to Kafka."""
