"""The production job between its real edges, to the topics' present end, and what Flink shows of it meanwhile.

``python -m tests.integration.bounded_job SETTINGS-FILE`` prints what DDL there is to show, and the plan.
"""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path

from vacancy.connectors.flink.edges import production_edges
from vacancy.jobs.flink.job_jars import flink_jars
from vacancy.jobs.flink.mini_cluster import prepare_java
from vacancy.jobs.settings import load_settings
from vacancy.topology.settings import JobSettings


def main(file: Path) -> None:
    """Runs the job until it has read everything."""
    settings = load_settings(file)
    logging = files("vacancy.jobs.flink").joinpath("log4j.properties").read_text(encoding="utf-8").splitlines()
    # With the clients' configuration, which the product's does not log.
    log4j = file.with_name("log4j.properties")
    log4j.write_text("\n".join(line for line in logging if not line.startswith("logger.kafka")), encoding="utf-8")
    os.environ["LOG4J_PROPERTIES"] = str(log4j)
    prepare_java(file.parent)
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from vacancy.topology.graph import Edges, build, configuration

    job = JobSettings(parallelism=1)
    flink = configuration(job)
    flink.set_string("pipeline.jars", ";".join(jar.as_uri() for jar in flink_jars()))
    environment = StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(flink))
    edges = production_edges(
        settings.kafka, settings.postgres.job_dsn, emit=job.emit, idle_timeout=job.idle_timeout, bounded=True
    )
    inserts = build(environment, job, Edges(edges))
    tables, views = set(environment.list_temporary_tables()), environment.list_temporary_views()
    for view in views:
        environment.execute_sql(f"SHOW CREATE VIEW {view}").print()
    print(f"{len(views)} views, tables left to show: {sorted(tables - set(views))}")
    print(inserts.explain())
    inserts.execute().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
