"""OpenStack Placement, which the parity test and the benchmark of claims compare with Vacancy.

It has a separate virtual environment with exactly ``requirements/placement.lock``: Placement has many dependencies, and
Vacancy needs none of them. ``environment`` creates it and runs the other modules in it, so these cannot import Vacancy.
"""
