"""The command line's frame: help without dependencies, one-line errors, exit statuses."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from vacancy.jobs.commands import cli


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(args))
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out, captured.err


@pytest.mark.parametrize("args", [("--help",), ("-h",), ()])
def test_help_lists_every_command(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    status, out, err = run(capsys, *args)
    assert status == (0 if args else 2)
    assert err == ""
    for name in ("up", "agent", "simulate", "job", "hosts", "dead-letters", "migrate", "doctor"):
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", ["up", "agent", "simulate", "job", "hosts", "dead-letters", "migrate", "doctor"])
def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments = (name, "run", "--help") if name == "job" else (name, "--help")
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert f"vacancy {name}" in out.partition("\n")[2]


@pytest.mark.parametrize(
    "args",
    [("frobnicate",), ("hosts", "--frobnicate"), ("simulate",), ("up", "--hosts", "many"), ("up", "--emit", "x")],
)
def test_usage_errors_are_one_line_and_status_2(capsys: pytest.CaptureFixture[str], args: tuple[str, ...]) -> None:
    status, out, err = run(capsys, *args)
    assert status == 2
    assert out == ""
    assert err.startswith("vacancy: ")
    assert err.count("\n") == 1
    assert "--help`" in err


def test_a_missing_extra_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "vacancy.jobs.commands.hosts":
            raise ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")
        return real_import(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    status, _, err = run(capsys, "hosts")
    assert status == 1
    assert "pip install 'vacancy[scheduler]'" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--version")
    assert status == 0
    assert out.startswith("vacancy, version ")


def test_help_imports_no_command() -> None:
    script = "import sys\nfrom vacancy.jobs.commands import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    script += "assert not {'confluent_kafka', 'psycopg2', 'pyflink'} & sys.modules.keys()\n"
    script += "assert not {'vacancy.jobs.commands.up', 'vacancy.jobs.commands.agent'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_the_help_of_the_daemon_for_nova_needs_no_psycopg2_and_the_rest_says_so() -> None:
    script = "import sys; sys.modules['psycopg2'] = None; from vacancy.jobs.commands.hot_traits import main; main()"
    shown = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--once" in shown.stdout
    ended = subprocess.run(
        [sys.executable, "-c", script, "--config-file", "/dev/null"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "psycopg2 is not installed" in ended.stderr
