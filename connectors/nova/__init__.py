"""Vacancy in nova-scheduler: a weigher and a filter that Nova loads by their names (docs/nova.md).

What always holds: it runs in Nova's environment, so it needs nothing there but what Nova brings and psycopg2; no
request fails, or waits longer than ``[vacancy] timeout``, because of it; nothing is done at import.
"""
