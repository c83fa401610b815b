"""The edges of the system: the code that reaches systems outside Vacancy.

There is one folder for each such system. A connector knows the events and the tables (``schemas``), but neither the
dataflow (``topology``) nor how it is started (``jobs``).
"""
