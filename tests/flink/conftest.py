"""Java and Flink's logs for the tests that run the graph."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Java runtime and a place for logs; the JVM that PyFlink starts ends with the last test."""
    from vacancy.jobs.flink.mini_cluster import prepare_java

    before = dict(os.environ)
    prepare_java(tmp_path_factory.mktemp("flink"))
    from pyflink import java_gateway

    launch = java_gateway.launch_gateway_server_process
    processes: list[subprocess.Popen[bytes]] = []

    def launch_and_remember(*arguments: Any) -> subprocess.Popen[bytes]:
        # PyFlink drops the process; we want to see it end.
        processes.append(launch(*arguments))
        return processes[-1]

    java_gateway.launch_gateway_server_process = launch_and_remember
    yield
    java_gateway.launch_gateway_server_process = launch
    if java_gateway._gateway is not None:
        java_gateway._gateway.shutdown()
        java_gateway._gateway = None
    for process in processes:
        process.terminate()
        process.communicate(timeout=30)
    os.environ.clear()
    os.environ.update(before)
