"""The edges of the system: whatever speaks to something that is not ours.

One folder a neighbour. A connector knows the events and the tables (``schemas``), never the dataflow (``topology``) or
how it is started (``jobs``).
"""
