"""Which state backend a checkpoint is of: one of another cannot be read, and Flink would try for ever.

A savepoint of `vacancy job stop` is in Flink's canonical format, which every backend reads.
"""

from __future__ import annotations

from pathlib import Path

from vacancy.jobs.flink.rest import cause
from vacancy.schemas.errors import ConfigError, VacancyError
from vacancy.topology.settings import JobSettings

_BACKENDS = {
    "KeyGroupsStateHandle": "hashmap",
    "IncrementalRemoteKeyedStateHandle": "rocksdb",
    "IncrementalLocalKeyedStateHandle": "rocksdb",
}
"""By the names of Flink's classes for the parts of a checkpoint. What is none of them, any backend reads."""


def require_own_backend(job: JobSettings, state: Path) -> None:
    """Looks whether the job's state backend reads a checkpoint or savepoint; Java is to be running.

    Raises:
        ConfigError: it does not; says what to do.
        VacancyError: the checkpoint is damaged.
    """
    own = job.flink.get("state.backend.type", job.state_backend).lower()
    try:
        backends = _backends(state)
    except Exception as error:  # noqa: BLE001  # whatever Java threw, as py4j hands it over
        raise VacancyError(
            f"the state to go on from, {state}, cannot be read: {cause(error)}; move it away to go on "
            "from the checkpoint before it, or start once with `vacancy job run --fresh`, which reads the topics from "
            "their beginning"
        ) from None
    others = backends - {own}
    if others and own in _BACKENDS.values():  # else it is one that we do not know, and Flink says what it reads
        raise ConfigError(
            f"job.state_backend is {own}, but the state to go on from, {state}, is of {', '.join(sorted(others))}; set "
            "it back, or start once without that state: `vacancy job run --fresh`, which reads the topics from their "
            "beginning. On a cluster a savepoint of `vacancy job stop` goes with any"
        )


def _backends(state: Path) -> set[str]:
    from pyflink.java_gateway import get_gateway

    jvm = get_gateway().jvm
    loader = jvm.Thread.currentThread().getContextClassLoader()
    stream = jvm.java.io.DataInputStream(jvm.java.io.FileInputStream(str(state / "_metadata")))
    try:
        checkpoints = jvm.org.apache.flink.runtime.checkpoint.Checkpoints
        operators = checkpoints.loadCheckpointMetadata(stream, loader, str(state)).getOperatorStates()
    finally:
        stream.close()
    handles = {
        handle.getClass().getSimpleName()
        for operator in operators.toArray()
        for subtask in operator.getStates().toArray()
        for handle in subtask.getManagedKeyedState().toArray()
    }
    return {_BACKENDS[name] for name in handles & _BACKENDS.keys()}
