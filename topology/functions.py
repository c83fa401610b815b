"""The two decoders as Flink functions. Vectorised: a call a batch, never one a record."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.types import RowType
from pyflink.table.udf import FunctionContext, ScalarFunction

from topology import inventory, usage
from topology.framing import RegistryLookup
from topology.inventory import InventoryDecoder
from topology.usage import UsageDecoder

RegistryFactory = Callable[[], RegistryLookup]
"""Makes the look-up in the worker: a client does not travel."""

USAGE_TYPE: RowType = DataTypes.ROW(
    [DataTypes.FIELD("reason", DataTypes.STRING())]
    + [DataTypes.FIELD(name, DataTypes.STRING()) for name in usage.IDS]
    + [DataTypes.FIELD(name, DataTypes.BIGINT()) for name in (*usage.AMOUNTS, *usage.COUNTERS)]
    + [DataTypes.FIELD(usage.CONSUMERS, DataTypes.STRING())]
)
INVENTORY_TYPE: RowType = DataTypes.ROW(
    [
        DataTypes.FIELD(
            name,
            {"retired": DataTypes.BOOLEAN(), "reporting_interval_ms": DataTypes.BIGINT()}.get(name, DataTypes.STRING()),
        )
        for name in inventory.COLUMNS
    ]
)


class DecodeUsage(ScalarFunction):  # type: ignore[misc]  # PyFlink ships no annotations
    """payload BYTES -> ROW(reason, the columns of a usage event)."""

    def __init__(self, registry: RegistryFactory | None = None) -> None:
        self._registry = registry

    def open(self, function_context: FunctionContext) -> None:
        """Makes the decoder, once a worker."""
        del function_context
        self._decoder = UsageDecoder(registry=self._registry and self._registry())

    def eval(self, payload: pd.Series) -> pd.DataFrame:
        """A batch of payloads to a batch of rows."""
        decoded = self._decoder.decode(payload.tolist())
        columns = {"reason": pd.Series(decoded.reasons, dtype=object)} | {
            name: decoded.columns[name] for name in usage.COLUMNS
        }
        return pd.DataFrame(columns, copy=False)


class DecodeInventory(ScalarFunction):  # type: ignore[misc]  # PyFlink ships no annotations
    """host_key STRING, payload BYTES -> ROW(reason, host_id, retired, the columns of an inventory event)."""

    def __init__(self, registry: RegistryFactory | None = None) -> None:
        self._registry = registry

    def open(self, function_context: FunctionContext) -> None:
        """Makes the decoder, once a worker."""
        del function_context
        self._decoder = InventoryDecoder(registry=self._registry and self._registry())

    def eval(self, host_key: pd.Series, payload: pd.Series) -> pd.DataFrame:
        """A batch of records to a batch of rows."""
        rows = self._decoder.decode(host_key.tolist(), payload.tolist())
        return pd.DataFrame(rows, columns=list(inventory.COLUMNS), dtype=object)
