"""The settings: their sources, what is refused, and that docs/settings.md describes all of them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import Settings, find_config, load_settings
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.units import format_duration

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
INTRODUCTION = """# Settings

One TOML file: by default `vacancy.toml` in the working directory, else the local stack's (in `--data-dir`, by default
`VACANCY_DATA_DIR` or the platform's state directory). Environment variables override it: `VACANCY_` + section + `__` +
key (`VACANCY_KAFKA__USAGE_TOPIC`); one that is misspelt is refused. Lists and tables in a variable are JSON
(`VACANCY_AGENT__TRAITS='["CUSTOM_GPU"]'`). Flags override variables. A secret may also be in a file with the name of
its variable, in the directory that `VACANCY_SECRETS_DIR` names; the file overrides the settings file, and the variable
overrides the file ([how](deploy.md#secrets)). Durations are written `"100 ms"`, `"1 s"`, `"5 min"`, `"1 h"`, or as a
number of seconds. All mistakes are reported at once, including unknown keys. Passwords are never printed.
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("VACANCY_")]:
        monkeypatch.delenv(name)
    return tmp_path / "vacancy.toml"


def test_flags_over_environment_over_file_over_defaults(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[job]\nemit = "2 s"\nwindow = "2 min"\nidle_timeout = 3\n', encoding="utf-8")
    monkeypatch.setenv("VACANCY_JOB__WINDOW", "90 s")
    monkeypatch.setenv("VACANCY_JOB__EMIT", "90 s")
    job = load_settings(file, {"job": {"emit": "100ms"}}).job
    assert job.emit == timedelta(milliseconds=100)
    assert job.window == timedelta(seconds=90)
    assert job.idle_timeout == timedelta(seconds=3)
    assert job.parallelism == Settings.model_fields["job"].get_default().parallelism


def test_secrets_as_files_over_the_settings_file_under_variables(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[postgres]\njob_dsn = "a"\nreader_dsn = "b"\nowner_dsn = "c"\n', encoding="utf-8")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setenv("VACANCY_SECRETS_DIR", str(secrets))
    (secrets / "VACANCY_POSTGRES__JOB_DSN").write_text("from a secret\n", encoding="utf-8")
    (secrets / "VACANCY_POSTGRES__READER_DSN").write_text("from a secret\n", encoding="utf-8")
    (secrets / "reader_password").write_text("another program's", encoding="utf-8")
    monkeypatch.setenv("VACANCY_POSTGRES__READER_DSN", "from a variable")
    postgres = load_settings(file).postgres
    assert postgres.job_dsn.get_secret_value() == "from a secret"
    assert postgres.reader_dsn.get_secret_value() == "from a variable"
    assert postgres.owner_dsn.get_secret_value() == "c"
    (secrets / "VACANCY_POSTGRES__JOB_DSM").write_text("hunter2", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"postgres\.job_dsm: no such setting") as caught:
        load_settings(file)
    assert "hunter2" not in str(caught.value)


def test_a_directory_of_secrets_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACANCY_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"none.*does not exist"):
        load_settings(None)


def test_all_mistakes_at_once_and_no_secret(file: Path) -> None:
    file.write_text(
        '[kafka]\nbotstrap_servers = "x"\n[job]\nemit = "10 ms"\nwindow = "soon"\n'
        '[postgres]\njob_dsn = ["hunter2"]\n[nonsense]\nkey = 1\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    message = str(caught.value)
    for key in ("kafka.botstrap_servers", "job.emit", "job.window", "postgres.job_dsn", "nonsense"):
        assert key in message
    assert "hunter2" not in message
    assert str(file) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VACANCY_KAFKA_BOOTSTRAP_SERVERS", "is it VACANCY_KAFKA__BOOTSTRAP_SERVERS?"),
        ("VACANCY_KAFAK__BOOTSTRAP_SERVERS", "is it VACANCY_KAFKA__BOOTSTRAP_SERVERS?"),
        ("vacancy_agents__interval", "is it VACANCY_AGENT__INTERVAL?"),
        ("VACANCY_SOMETHING__ELSE_ENTIRELY", "see docs/settings.md"),
        ("VACANCY_EXTENDER", "see docs/settings.md"),
    ],
)
def test_a_misspelt_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError) as error:
        load_settings(None)
    assert str(error.value) == f"environment: {name}: no such setting ({meant})"


@pytest.mark.parametrize(("name", "meant"), [("VACANCY_DATADIR", "DATA_DIR"), ("VACANCY_SECRET_DIR", "SECRETS_DIR")])
def test_a_misspelt_directory_is_no_variable(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setenv(name, "/somewhere")
    with pytest.raises(ConfigError) as error:
        load_settings(None)
    assert str(error.value) == f"environment: {name}: no such variable (is it VACANCY_{meant}?)"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("VACANCY_AGENT__AGGREGATES", "list"),
        ("VACANCY_WEB__ALLOW_HOSTS", "list"),
        ("VACANCY_JOB__FLINK", "table"),
        ("VACANCY_KAFKA__SECURITY", "table"),
    ],
)
def test_a_list_in_a_variable_is_json(monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    monkeypatch.setenv(name, "one, two")
    with pytest.raises(ConfigError, match=f"{name}: write the {kind} as JSON, such as "):
        load_settings(None)


@pytest.mark.parametrize(
    "name",
    [
        "VACANCY_TEST_SEED",
        "VACANCY_HOME",
        "VACANCY_DATA_DIR",
        "VACANCY_AGENT_SERVICE_HOST",
        "VACANCY_JOB_PORT",
        "VACANCY_JOB_PORT_8081_TCP_ADDR",
    ],
)
def test_a_variable_of_others_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The last ones are what Kubernetes sets for Services that are named as our parts are."""
    monkeypatch.setenv(name, "tcp://10.0.0.1")
    load_settings(None)


def test_a_variable_names_the_data_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("", encoding="utf-8")
    monkeypatch.chdir("/")
    monkeypatch.setenv("VACANCY_DATA_DIR", str(file.parent))
    assert find_config(None, None) == file


def test_options_of_flink_are_written_as_in_its_own_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(
        '[job.flink]\nrestart-strategy.type = "fixed-delay"\n"a.b" = 3\n[job.flink.state.ttl]\nlazy = true\n',
        encoding="utf-8",
    )
    expected = {"restart-strategy.type": "fixed-delay", "a.b": "3", "state.ttl.lazy": "true"}
    settings = load_settings(file)
    assert settings.job.flink == expected
    file.write_text(settings_file.dumps(settings), encoding="utf-8")
    assert load_settings(file).job.flink == expected
    monkeypatch.setenv("VACANCY_JOB__FLINK", '{"a.b": "c"}')
    assert load_settings(None).job.flink == {"a.b": "c"}


@pytest.mark.parametrize(
    ("security", "complaints"),
    [
        ({"protocol": "SASL_SSL"}, ["mechanism is missing", "username is missing", "password is missing"]),
        ({"password": "hunter2"}, ["password is set, but PLAINTEXT asks for none; set protocol to SASL_SSL"]),
        ({"protocol": "SSL", "username": "hunter2"}, ["username is set, but SSL asks for none"]),
        ({"ca_file": "/hunter2"}, ["ca_file is set, but PLAINTEXT is not encrypted; set protocol to SSL"]),
        ({"protocol": "SSL", "key_file": "/hunter2"}, ["certificate_file and key_file need each other"]),
        ({"protocol": "SSL", "key_password": "hunter2"}, ["key_password is set without key_file"]),
    ],
)
@pytest.mark.usefixtures("file")
def test_security_that_would_be_passed_over_is_refused(security: dict[str, str], complaints: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^settings: kafka\.security: ") as caught:
        load_settings(None, {"kafka": {"security": security}})
    for complaint in complaints:
        assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("text", "complaint"), [("[job\n", "not TOML"), ("job = 3\n", "job:")])
def test_a_broken_file_says_where(file: Path, text: str, complaint: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint):
        load_settings(file)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such settings file"):
        find_config(tmp_path / "none.toml", None)
    with pytest.raises(ConfigError, match="has `vacancy up --data-dir"):
        find_config(None, tmp_path)


def test_the_page_tells_every_setting() -> None:
    """``make goldens`` regenerates the page."""
    if os.environ.get("VACANCY_REGENERATE_GOLDENS"):
        PAGE.write_text(_page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == _page()


def _page() -> str:
    sections = [_section(name, field.annotation) for name, field in Settings.model_fields.items()]
    return INTRODUCTION + "".join(sections)


def _section(name: str, model: object) -> str:
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    lines = [
        f"\n## {name}\n",
        (model.__doc__ or "").splitlines()[0] + "\n",
        "| key | default | what it is |\n|---|---|---|",
    ]
    subsections = ""
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            subsections += _section(f"{name}.{key}", field.annotation)
            continue
        assert field.description, f"{name}.{key} has no description"
        lines.append(f"| `{name}.{key}` | {_default(field)} | {field.description} |")
    return "\n".join(lines) + "\n" + subsections


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "`checkpoints` in the working directory"
    value = field.default
    if isinstance(value, timedelta):
        value = format_duration(value)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[]`"
    if isinstance(value, dict):
        return "`{}`"
    return f"`{value}`" if isinstance(value, int | float) else f'`"{value}"`'
