"""Connector options: quoting, connection strings, and secrets only where the connector reads them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import SecretStr

from connectors.flink import jdbc_url, production_edges, with_clause
from connectors.settings import KafkaSecurity, KafkaSettings
from schemas.errors import ConfigError
from schemas.units import format_duration, interval_literal, parse_duration


def test_with_clause_quotes() -> None:
    assert with_clause({"a": "it's", "b": "x"}) == "'a' = 'it''s',\n  'b' = 'x'"


def test_jdbc_url_from_both_forms_of_a_dsn() -> None:
    url, user, password = jdbc_url(SecretStr("postgresql://job:p%40ss@db:6432/va%20cancy?sslmode=verify-full"))
    assert (user, password) == ("job", "p@ss")
    assert url.startswith("jdbc:postgresql://db:6432/va%20cancy?")
    assert "sslmode=verify-full" in url
    assert "p@ss" not in url
    assert jdbc_url(SecretStr("host=h user=u dbname=d"))[0].startswith("jdbc:postgresql://h:5432/d?")


@pytest.mark.parametrize("dsn", ["postgresql://[hunter2", "host=h dbname=d"])
def test_a_wrong_dsn_is_named_not_shown(dsn: str) -> None:
    with pytest.raises(ConfigError, match=r"postgres\.job_dsn") as caught:
        jdbc_url(SecretStr(dsn))
    assert "hunter2" not in str(caught.value)


def test_sasl_reaches_all_three_kafka_edges_and_no_other() -> None:
    kafka = KafkaSettings(
        security=KafkaSecurity(
            protocol="SASL_SSL", mechanism="SCRAM-SHA-512", username='us"er', password=SecretStr("it's")
        )
    )
    second = timedelta(seconds=1)
    edges = production_edges(kafka, SecretStr("host=h user=u"), emit=second, idle_timeout=second)
    assert ["ScramLoginModule" in edge for edge in edges] == [True, True, False, False, True]
    assert 'username="us\\"er" password="it\'\'s";' in edges[0]


@pytest.mark.parametrize(
    ("text", "milliseconds", "literal", "again"),
    [
        ("100ms", 100, "INTERVAL '0 00:00:00.100' DAY TO SECOND(3)", "100 ms"),
        ("1.5 s", 1500, "INTERVAL '0 00:00:01.500' DAY TO SECOND(3)", "1500 ms"),
        ("90 min", 5_400_000, "INTERVAL '0 01:30:00.000' DAY TO SECOND(3)", "90 min"),
        ("2 d", 172_800_000, "INTERVAL '2 00:00:00.000' DAY TO SECOND(3)", "2 d"),
    ],
)
def test_durations(text: str, milliseconds: int, literal: str, again: str) -> None:
    duration = parse_duration(text)
    assert duration == timedelta(milliseconds=milliseconds)
    assert interval_literal(duration) == literal
    assert format_duration(duration) == again
