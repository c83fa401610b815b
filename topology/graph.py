"""The graph: the SQL files of this folder in the order of their numbers, between edges that the caller provides.

What always holds: each operator has a name that does not depend on the others, and its uid is that name. A savepoint
finds an operator's state by its uid, even after the code has changed, so renaming an operator discards its state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from string import Template
from typing import Any, NamedTuple

from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StatementSet, StreamTableEnvironment
from pyflink.util.java_utils import to_jarray

from vacancy.schemas.events import READS_AS_HEADER, Event, SchemaVersion, released
from vacancy.schemas.units import milliseconds_of
from vacancy.schemas.usage import HOST_COLUMNS
from vacancy.topology.settings import MAX_PARALLELISM, JobSettings

_NAMES = {"ProcessTableFunction": "host_window"}
"""Fixed names by the planner's name: the only operator with state beyond Kafka offsets has a fixed name."""


class Decoder(NamedTuple):
    """A function that decodes one kind of event."""

    event: Event
    function: str
    java_class: str


DECODERS = (
    Decoder(Event.USAGE, "decode_usage", "DecodeUsage"),
    Decoder(Event.INVENTORY, "decode_inventory", "DecodeInventory"),
)

_EDGES = ("usage_topic", "inventory_topic", "host", "host_inventory", "dead_letters")


@dataclass(frozen=True)
class Edges:
    """CREATE TABLE statements for the five tables that the graph reads and writes.

    They are ``usage_topic`` and ``inventory_topic`` (sources), ``host``, ``host_inventory`` and ``dead_letters``
    (sinks), with the columns that ``connectors/flink/sql`` declares. A source keeps the order of each host's events.
    """

    statements: Sequence[str]


@dataclass(frozen=True)
class SchemaRegistry:
    """Where the decoders look up Confluent's schema ids.

    Attributes:
        url: its base URL, without user and password.
        credentials: user:password; None if it needs none.
    """

    url: str
    credentials: str | None = field(default=None, repr=False)


def configuration(settings: JobSettings) -> Configuration:
    """The Flink options that the graph needs; the caller sets where it runs, its files and its checkpoints."""
    options = {
        "parallelism.default": settings.parallelism,
        "pipeline.max-parallelism": MAX_PARALLELISM,
        "pipeline.object-reuse": "true",
        # An event crosses one exchange, where it waits at most a tenth of the emit interval.
        "execution.buffer-timeout.interval": f"{milliseconds_of(settings.emit) // 10} ms",
        # Times are written as text, so their time zone must not depend on the machine.
        "table.local-time-zone": "UTC",
        # One decoder serves all readers of its output; the plan test checks that.
        "table.optimizer.reuse-optimize-block-with-digest-enabled": "true",
    }
    result = Configuration()
    for key, value in options.items():
        result.set_string(key, str(value))
    return result


def build(
    table_environment: StreamTableEnvironment,
    settings: JobSettings,
    edges: Edges,
    registry: SchemaRegistry | None = None,
    versions: Callable[[Event], Sequence[SchemaVersion]] = released,
) -> StatementSet:
    """Declares the edges, functions and views, and returns the INSERTs, ready to execute or explain.

    It drops the edges' tables afterwards: the INSERTs no longer need them, and SHOW CREATE TABLE would reveal their
    passwords.

    Args:
        table_environment: its ``pipeline.jars`` or class path must contain the dataflow's Java classes.
        settings: the job's settings.
        edges: the tables that the graph reads and writes.
        registry: the registry of Confluent's schema ids; None if none is configured.
        versions: returns the versions of an event to decode, the newest last; records are read into the newest.
    """
    for statement in edges.statements:
        table_environment.execute_sql(statement)
    for event, function, java_class in DECODERS:
        _add_function(table_environment, function, java_decoder(java_class, versions(event), registry))
    return insert_set(table_environment, settings, statements())


def insert_set(
    table_environment: StreamTableEnvironment, settings: JobSettings, dataflow: Sequence[str]
) -> StatementSet:
    """Runs a dataflow's statements, returns its INSERTs without running them, and drops the edges' tables."""
    window = get_gateway().jvm.vacancy.HostWindowFunction(milliseconds_of(settings.window))
    _add_function(table_environment, "host_window", window)
    inserts = table_environment.create_statement_set()
    for statement in dataflow:
        if "\nINSERT INTO" in statement:
            inserts.add_insert_sql(statement)
        else:
            table_environment.execute_sql(statement)
    for table in _EDGES:
        table_environment.drop_temporary_table(table)
    return inserts


def _add_function(table_environment: StreamTableEnvironment, name: str, function: Any) -> None:
    # PyFlink registers Java functions by class only, so it cannot pass arguments to their constructors.
    table_environment._j_tenv.createTemporaryFunction(name, function)  # noqa: SLF001


def java_decoder(java_class: str, versions: Sequence[SchemaVersion], registry: SchemaRegistry | None = None) -> Any:
    """A decoder as the Java object that Flink serializes into the job: ``DecodeUsage`` or ``DecodeInventory``."""
    jvm = get_gateway().jvm
    texts = to_jarray(jvm.String, [version.text for version in versions])
    make = getattr(jvm.vacancy, java_class)
    return make(texts, registry and registry.url, registry and registry.credentials)


def add_to(environment: StreamExecutionEnvironment, inserts: StatementSet) -> list[str]:
    """Adds the INSERTs to an execution environment, gives each operator a name and a uid, and returns the names.

    SQL leaves both to the planner. The planner's names contain numbers that change with the plan, and only compiled
    plans get uids. So both are set on the planner's transformations before Flink translates them further.
    """
    inserts.attach_as_datastream()
    names: list[str] = []
    sources: dict[int, set[str]] = {}
    for step in _upstream_first(environment):
        kind = step.getClass().getSimpleName()
        # The planner's name ends with the name of a table or kind of operator, usually followed by [number].
        label = re.sub(r"^.*\.|\[\d+\]$", "", step.getName())
        read = [sources[input_.getId()] for input_ in step.getInputs()]
        sources[step.getId()] = set().union(*read) if read else {label}
        if kind.startswith(("Partition", "Union")):
            continue  # no operator
        name = label
        if read and "Sink" not in kind:
            name = _NAMES.get(label, f"{label} of {', '.join(sorted(sources[step.getId()]))}")
        number = sum(other == name or other.startswith(f"{name} (") for other in names) + 1
        names.append(name if number == 1 else f"{name} ({number})")
        step.setName(names[-1])
        step.setUid(names[-1])
    return names


def _upstream_first(environment: StreamExecutionEnvironment) -> Iterator[Any]:
    """The environment's Java transformations, each once and after all of its inputs."""
    done: set[int] = set()

    def walk(step: Any) -> Iterator[Any]:
        if step.getId() not in done:
            done.add(step.getId())
            for input_ in step.getInputs():
                yield from walk(input_)
            yield step

    # PyFlink offers no public access to them.
    for sink in environment._j_stream_execution_environment.getTransformations():  # noqa: SLF001
        yield from walk(sink)


def statements() -> list[str]:
    """The SQL of this folder, in order, with names filled in."""
    columns = [name if name == "host_id" else f"host.{name}" for name in HOST_COLUMNS]
    parameters = {"host_columns": ",\n  ".join(columns), "reads_as_header": READS_AS_HEADER}
    files = sorted(resources.files("vacancy.topology").joinpath("sql").iterdir(), key=lambda file: file.name)
    return [Template(file.read_text(encoding="utf-8")).substitute(parameters) for file in files]
