"""The Flink job: in a mini cluster of its own, or submitted to a cluster, and the jars that it needs."""
