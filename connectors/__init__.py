"""The edges of the system: all code that talks to external systems.

Each external system has one folder. A connector knows the events and the tables (``schemas``), never the dataflow
(``topology``) or how it is started (``jobs``).
"""
