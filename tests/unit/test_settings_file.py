"""Settings survive being written and read."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from vacancy.jobs.local.settings_file import dumps
from vacancy.jobs.settings import Settings, load_settings

ODD = 'a"b\\c\n\t\x01\x7f é 😀 = [#]'


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"local": {"kafka_port": 9092}, "agent": {"traits": ["CUSTOM_A", "HW_B"], "memory_allocation_ratio": 1.5}},
        {
            "kafka": {
                "security": {
                    "protocol": "SASL_SSL",
                    "mechanism": "SCRAM-SHA-256",
                    "username": ODD,
                    "password": ODD,
                    "ca_file": Path("/etc/ca.pem"),
                }
            }
        },
        {"storage": {"auth": {"password": ODD}, "aggregates": {"node.1@lvm#*": ["a", "b"], ODD: []}}},
        {"postgres": {"job_dsn": f"postgresql://{ODD}"}},
        {"job": {"emit": timedelta(milliseconds=100), "window": timedelta(minutes=2)}, "agent": {"zone": None}},
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, flags: dict[str, object]) -> None:
    settings = load_settings(None, flags)
    file = tmp_path / "vacancy.toml"
    file.write_text(dumps(settings), encoding="utf-8")
    assert load_settings(file).model_dump() == settings.model_dump()
    assert "bootstrap_servers" in load_settings(file).kafka.model_fields_set


def test_defaults_are_left_out() -> None:
    assert "interval" not in dumps(Settings())
