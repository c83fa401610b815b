"""Java for the tests that explain the graph."""

from tests.flink.conftest import java

__all__ = ["java"]
