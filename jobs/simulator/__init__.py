"""A simulated fleet: its hosts as columns of numbers, and their events on the way to Kafka."""
