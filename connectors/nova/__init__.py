"""Vacancy in nova-scheduler: a weigher and a filter that Nova loads by their names (docs/nova.md).

What always holds: it runs in Nova's environment, so it needs only psycopg2 and what Nova brings; no request fails, or
waits longer than ``[vacancy] timeout``, because of it; an import has no side effects.
"""
