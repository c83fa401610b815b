"""What Flink makes of the graph: EXPLAIN of every INSERT, between the production edges. Nothing runs."""

from __future__ import annotations

import re

import pytest

SECRET = "user:xyzzy"


@pytest.fixture(scope="module")
def plan() -> str:
    """The optimized execution plan of all INSERTs together, as the job submits them."""
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from vacancy.connectors.flink.edges import production_edges
    from vacancy.connectors.settings import KafkaSettings, PostgresSettings
    from vacancy.jobs.flink.job_jars import flink_jars
    from vacancy.topology.graph import Edges, SchemaRegistry, build, configuration
    from vacancy.topology.settings import JobSettings

    settings = JobSettings()
    flink = configuration(settings)
    flink.set_string("pipeline.jars", ";".join(jar.as_uri() for jar in flink_jars()))
    edges = production_edges(
        KafkaSettings(),
        PostgresSettings().job_dsn,
        emit=settings.emit,
        idle_timeout=settings.idle_timeout,
    )
    environment = StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(flink))
    explained: str = build(environment, settings, Edges(edges), SchemaRegistry("http://registry", SECRET)).explain()
    return explained[explained.index("== Optimized Execution Plan ==") :]


def test_each_operator_has_its_name_and_a_uid() -> None:
    """A savepoint finds its state by these: to rename one is a change of state, to be said so in the changelog."""
    from vacancy.jobs.flink.job_jars import flink_jars
    from vacancy.jobs.flink.mini_cluster import graph
    from vacancy.jobs.settings import Settings

    environment = graph(Settings(), {"pipeline.jars": ";".join(jar.as_uri() for jar in flink_jars())})
    # Flink refuses the graph if it has an operator without uid: pipeline.auto-generate-uids is off.
    nodes = environment._j_stream_execution_environment.getStreamGraph(False).getStreamNodes().toArray()
    uids = [node.getTransformationUID() for node in nodes]
    assert len(set(uids)) == len(uids)
    # The others are a kind of operator of a topic, and keep no state.
    assert sorted(uid for uid in uids if " of " not in uid) == [
        "dead_letters",
        "host",
        "host_inventory",
        "host_window",
        "inventory_topic",
        "usage_topic",
    ]
    assert all("[" not in node.getOperatorName() for node in nodes), "numbers of the planner's"


def test_each_decoder_appears_once(plan: str) -> None:
    """Left to itself the planner makes thirty calls of one, for each use of a column in each branch."""
    assert plan.count("decode_usage(") == 1, plan
    assert plan.count("decode_inventory(") == 1, plan


def test_no_python_operator(plan: str) -> None:
    assert "Python" not in plan, plan


def test_all_sinks_are_fed(plan: str) -> None:
    assert sorted(re.findall(r"Sink\(table=\[default_catalog\.default_database\.(\w+)\]", plan)) == [
        "dead_letters",
        "host",
        "host_inventory",
    ], plan


def test_no_changelog_operators(plan: str) -> None:
    """Rows are only ever added: nothing in the plan keeps rows to take them back."""
    for operator in ("ChangelogNormalize", "SinkMaterializer", "GroupAggregate", "Rank", "Deduplicate", "Join"):
        assert operator not in plan, plan


def test_an_event_crosses_one_exchange_to_one_window(plan: str) -> None:
    """The cost of an event does not depend on the window: one function keeps it, in the order of arrival.

    Nothing waits for a watermark, and there are no slices to merge.
    """
    assert plan.count("ProcessTableFunction(") == 1, plan
    assert "uid=[host_window]" in plan, plan
    assert plan.count("Exchange(") == 1, plan
    for windowing in ("WindowAggregate", "HOP(", "TUMBLE(", "CUMULATE("):
        assert windowing not in plan, plan


def test_the_plan_shows_no_secret(plan: str) -> None:
    assert "password" not in plan
    assert SECRET not in plan
