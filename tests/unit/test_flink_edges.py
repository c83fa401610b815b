"""Connector options: quoting, connection strings, and secrets only in the options that connectors read them from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from pydantic import SecretStr

from vacancy.connectors.flink.edges import jdbc_url, kafka_client_options, production_edges, with_clause
from vacancy.connectors.settings import KafkaSecurity, KafkaSettings
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.units import format_duration, parse_duration


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


def test_sasl_reaches_all_edges() -> None:
    """The tables' too: they write what the database refuses to the dead-letter topic."""
    kafka = KafkaSettings(
        security=KafkaSecurity(
            protocol="SASL_SSL", mechanism="SCRAM-SHA-512", username='us"er', password=SecretStr("it's")
        )
    )
    second = timedelta(seconds=1)
    edges = production_edges(kafka, SecretStr("host=h user=u"), emit=second, idle_timeout=second)
    assert ["ScramLoginModule" in edge for edge in edges] == [True] * 5
    assert 'username="us\\"er" password="it\'\'s";' in edges[0]


def test_several_servers_and_an_ipv6_address() -> None:
    assert jdbc_url(SecretStr("host=a,b port=1,2 user=u"))[0].startswith("jdbc:postgresql://a:1,b:2/u?")
    assert jdbc_url(SecretStr("host=a,b user=u"))[0].startswith("jdbc:postgresql://a:5432,b:5432/u?")
    assert jdbc_url(SecretStr("postgresql://u@[::1]:6432/d"))[0].startswith("jdbc:postgresql://[::1]:6432/d?")
    assert jdbc_url(SecretStr("host=a,fe80::1 port=1, user=u"))[0].startswith("jdbc:postgresql://a:1,[fe80::1]:5432/u?")


@pytest.mark.parametrize(
    ("dsn", "target"),
    [
        ("host=a user=u", "any"),
        ("host=a,b user=u", "primary"),
        ("postgresql://u@a:1,b:2,c:3/d?target_session_attrs=read-write", "primary"),
        ("host=a,b user=u target_session_attrs=primary", "primary"),
        ("host=a,b user=u target_session_attrs=any", "any"),
    ],
)
def test_of_several_servers_the_driver_takes_the_one_that_takes_writes(dsn: str, target: str) -> None:
    assert f"targetServerType={target}" in jdbc_url(SecretStr(dsn))[0]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("sslcrl=/hunter2 sslpassword=hunter2", "knows no sslcrl, sslpassword; leave it out"),
        ("host=/var/run", "names a Unix socket"),
        ("host=a,b,c port=1,2", "2 ports for 3 hosts"),
        ("target_session_attrs=standby", "the job writes, and target_session_attrs=standby asks for"),
        ("target_session_attrs=prefer-standby", "the job writes, and target_session_attrs=prefer-standby asks for"),
        ("sslrootcert=system", "knows no sslrootcert=system; name the system's file"),
        ("sslkey=/no/such/key", r"sslkey: /no/such/key: No such file or directory$"),
        (
            "sslkey={pkcs1}",
            "holds no PRIVATE KEY in PKCS #8, not encrypted, which Java wants; convert it: openssl pkcs8",
        ),
        (
            "sslkey={encrypted}",
            "holds no PRIVATE KEY in PKCS #8, not encrypted, which Java wants; convert it: openssl pkcs8",
        ),
    ],
)
def test_what_pgjdbc_cannot_do_is_refused_not_passed_over(more: str, complaint: str, keys: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        jdbc_url(SecretStr(f"host=h user=u {more.format_map(keys)}"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("key", "algorithm"), [("rsa", "RSA"), ("ec", "EC")])
def test_the_algorithm_of_a_key_is_told(key: str, algorithm: str, keys: dict[str, Path]) -> None:
    assert f"pemKeyAlgorithm={algorithm}" in jdbc_url(SecretStr(f"host=h user=u sslkey={keys[key]}"))[0]


def test_a_key_stands_in_no_option(keys: dict[str, Path]) -> None:
    def options(key: Path, password: str | None = None) -> dict[str, str]:
        security = {"protocol": "SSL", "ca_file": keys["ec"], "certificate_file": keys["ec"], "key_file": key}
        security |= {"key_password": password} if password else {}
        return kafka_client_options(KafkaSettings(security=KafkaSecurity.model_validate(security)))

    directory = keys["ec"].parent
    assert options(keys["ec"])["properties.ssl.keystore.key"] == f"${{directory:{directory}:ec.key}}"
    with pytest.raises(ConfigError, match=r"kafka\.security\.key_file: .* holds no PRIVATE KEY in PKCS #8"):
        options(keys["pkcs1"])
    with pytest.raises(ConfigError, match=r"key_password: the job's Kafka client \(Java\) cannot decrypt keys"):
        options(keys["encrypted"], "p")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Private keys in files: two algorithms in PKCS #8, an encrypted one, and an older format."""
    directory = tmp_path_factory.mktemp("keys")
    elliptic = ec.generate_private_key(ec.SECP256R1())
    clear = NoEncryption()
    written = {
        "rsa": rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, clear),
        "ec": elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, clear),
        "encrypted": elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p")),
        "pkcs1": elliptic.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, clear),
    }
    for name, key in written.items():
        (directory / f"{name}.key").write_bytes(key)
    return {name: directory / f"{name}.key" for name in written}


@pytest.mark.parametrize(
    ("text", "milliseconds", "again"),
    [
        ("100ms", 100, "100 ms"),
        ("1.5 s", 1500, "1500 ms"),
        ("90 min", 5_400_000, "90 min"),
        ("2 d", 172_800_000, "2 d"),
    ],
)
def test_durations(text: str, milliseconds: int, again: str) -> None:
    duration = parse_duration(text)
    assert duration == timedelta(milliseconds=milliseconds)
    assert format_duration(duration) == again
