"""OpenStack Placement beside us: what the parity test and the benchmark of claims ask for the same.

It lives in a virtual environment of its own, of exactly ``requirements/placement.lock``: its dependencies are many, and
none of ours. ``environment`` makes it and runs the other modules in it, which may therefore import nothing of ours.
"""
