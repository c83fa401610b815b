"""The dataflow: SQL in reading order, the decoder, the graph and its settings."""
