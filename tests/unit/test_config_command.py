"""`vacancy config`, the words for what is wrong with settings, and what helps where nothing is set up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from vacancy.jobs.commands.cli import main
from vacancy.jobs.commands.config import command
from vacancy.jobs.commands.request_options import parse_request
from vacancy.jobs.settings import Settings, load_settings
from vacancy.jobs.settings_template import PARTS, template
from vacancy.schemas.errors import ConfigError

NO_FLAGS = {"any_of": (), "resources": (), "numa_cpus": 0, "numa_pages": (), "pci": ()}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("VACANCY_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_the_template_is_the_defaults_and_each_of_its_lines_may_be_used(part: str, tmp_path: Path) -> None:
    file = tmp_path / "vacancy.toml"
    file.write_text("".join(f"[{section}]\n" for section in PARTS[part]), encoding="utf-8")
    defaults = load_settings(file).model_dump()
    file.write_text(template(PARTS[part]), encoding="utf-8")
    assert load_settings(file).model_dump() == defaults
    # A line with a default: as TOML it is the default.
    text = re.sub(r"^# (\w+ = (?!…).*)$", r"\1", template(PARTS[part]), flags=re.MULTILINE)
    file.write_text(text, encoding="utf-8")
    assert load_settings(file).model_dump() == defaults
    assert tomllib.loads(text).keys() == set(PARTS[part])


def test_every_setting_is_in_the_template() -> None:
    text = template(PARTS["all"])
    for section, field in Settings.model_fields.items():
        assert f"[{section}]" in text
        for key in type(field.default).model_fields:
            assert re.search(rf"^(# {key} = |\[{section}\.{key}\])", text, re.MULTILINE), f"{section}.{key}"


def test_init_writes_once_and_check_shows_what_differs_without_secrets(tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = run(command, ["init", "--for", "job"])
    assert made.exit_code == 0
    file = tmp_path / "vacancy.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "is there already" in str(run(command, ["init"]).exception)
    file.write_text('[job]\nemit = "2 s"\n[postgres]\njob_dsn = "postgresql://j:hush@db/v"\n', encoding="utf-8")
    shown = run(command, ["check"]).output
    assert "job.emit = 0:00:02" in shown
    assert "postgres.job_dsn = **********" in shown
    assert "no mistakes" in shown
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[agent]\ntolerance = 0.02\nmax_silence = '20 s'\n",
            "agent.max_silence (20 s) is more than half of scheduler.max_age (30 s): one event that is lost makes",
        ),
        ("[agent]\ninterval = '16 s'\n", "agent.interval (16 s) is more than half of scheduler.max_age (30 s)"),
        ("[agent]\nmax_silence = '60 s'\n", ""),
        ("[agent]\ntolerance = 0.02\nmax_silence = '15 s'\n", ""),
    ],
)
def test_check_says_where_one_lost_event_makes_a_host_stale(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "vacancy.toml").write_text(text, encoding="utf-8")
    shown = CliRunner().invoke(command, ["check"]).output
    assert words in shown
    assert ("more than half" in shown) is bool(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[job]\nparallelism = 'many'\n", "job.parallelism: must be a whole number"),
        ("[job]\nparallelism = 1.5\n", "job.parallelism: must be a whole number"),
        ("[job]\nparallelism = 0\n", "job.parallelism: must be at least 1"),
        ("[agent]\nvcpu_allocation_ratio = 0\n", "agent.vcpu_allocation_ratio: must be more than 0"),
        ("[agent]\ntraits = 3\n", 'agent.traits: must be a list: ["…", "…"]'),
        ("[scheduler]\nstrategy = 'spred'\n", "scheduler.strategy: must be 'spread', 'pack' or 'random'"),
        ("[kafka]\nusage_topic = 7\n", "kafka.usage_topic: must be a text in quotes"),
        ("[job]\nship = 'perhaps'\n", "job.ship: must be true or false"),
        ("kafka = 3\n", "kafka: must be a table"),
        ("[web]\ntoken = 'short'\n", "web.token: must be at least 16 long"),
        ("[agent]\ntolerance = 2\n", "agent.tolerance: must be at most 1"),
        ("[agent]\ntolerance = nan\n", "agent.tolerance: must be a finite number"),
        (
            "[agent]\ntolerance = 0.02\nmax_silence = '31 s'\n",
            "vacancy.toml: agent.max_silence and agent.interval must be at most half of job.window, with",
        ),
        ("[agent]\ntolerance = 0.02\n[job]\nwindow = '19 s'\n", "with agent.tolerance; it is 19 s"),
    ],
)
def test_mistakes_are_said_in_our_words(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "vacancy.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert words in str(caught.value)
    assert "input should" not in str(caught.value).lower()


def test_flags_are_named_as_they_are_written() -> None:
    with pytest.raises(ConfigError, match=r"--require: must be a list"):
        parse_request(**NO_FLAGS, required=7)
    with pytest.raises(ConfigError, match=r"--vcpus: must be at least 0$"):
        parse_request(**NO_FLAGS, vcpus=-1)


def test_where_nothing_is_set_up_the_local_stack_is_mentioned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vacancy.jobs.settings.platformdirs.user_state_path", lambda _: tmp_path / "state")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("VACANCY_DATA_DIR", str(tmp_path / "nothing"))  # says where a stack would be, not where it is
    for arguments in (
        ["job", "status", "--flink-url", "http://127.0.0.1:1"],
        ["hosts"],
        ["disable", "a", "--reason", "b"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "`vacancy up` runs a whole system" in capsys.readouterr().err
    (tmp_path / "vacancy.toml").touch()
    with pytest.raises(SystemExit):
        main(["job", "status", "--flink-url", "http://127.0.0.1:1"])
    assert "vacancy up" not in capsys.readouterr().err


def test_shell_completion_knows_the_commands() -> None:
    environment = os.environ | {"_VACANCY_COMPLETE": "bash_complete", "COMP_WORDS": "vacancy ho", "COMP_CWORD": "1"}
    program = "from vacancy.jobs.commands.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert sorted(ended.stdout.split()) == ["plain,host", "plain,hosts"]
