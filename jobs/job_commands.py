"""``vacancy job``: the Flink job, here or on a cluster."""

from __future__ import annotations

import click

from jobs.cluster import status, stop, submit
from jobs.job import run

command = click.Group("job", help="The Flink job that keeps the table.", commands=[run, submit, stop, status])
