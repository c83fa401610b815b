"""Vacancy in nova-scheduler: a weigher and a filter that Nova loads by their names (docs/nova.md).

What always holds: this code runs in Nova's environment, so it needs only Nova's own packages and psycopg2. It never
makes a request fail, nor wait longer than ``[vacancy] timeout``. Importing it has no side effects.
"""
