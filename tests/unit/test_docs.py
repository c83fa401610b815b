"""The pages (*.md): their links lead somewhere, and the files and names that they tell of exist."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import textwrap
import tomllib
import uuid
from pathlib import Path

import click
import pytest
import yaml

import vacancy
from vacancy.jobs.commands.cli import _COMMANDS, cli
from vacancy.jobs.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith("."))
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "node_modules") for part in page.relative_to(ROOT).parts)
    and not page.is_relative_to(ROOT / "vacancy")  # links to the other folders
)
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*")
IMPORT = re.compile(r"^from vacancy import (.+)$", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them: lower case, hyphens for blanks, no punctuation."""
    found: dict[str, int] = {}
    result = set()
    for heading in HEADING.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        again = found.get(anchor, 0)
        found[anchor] = again + 1
        result.add(f"{anchor}-{again}" if again else anchor)
    return result


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


@each_page
def test_files_that_a_page_tells_of_exist(page: Path) -> None:
    """A code span that is a path from the root of the repository names a file or a folder that is there."""
    spans = SPAN.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    paths = [span for span in spans if PATH.fullmatch(span)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@each_page
def test_commands_that_a_page_tells_of_exist(page: Path) -> None:
    """A code span or a line of a code block that begins with `vacancy` and a word runs a command that is there."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(CODE.findall(text))
    told = re.findall(r"`vacancy ([a-z][a-z-]*)\b", text) + re.findall(r"^\$? *vacancy ([a-z][a-z-]*)\b", blocks, re.M)
    assert sorted(set(told) - set(_COMMANDS)) == []


def test_names_that_pages_import_are_public() -> None:
    names = {
        name.strip()
        for page in PAGES
        for line in IMPORT.findall(page.read_text(encoding="utf-8"))
        for name in line.partition("#")[0].split(",")
    }
    assert {"Request", "Scheduler"} <= names
    assert names <= set(vacancy.__all__)


SHELL = re.compile(r"^ *```(?:sh|bash|console)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> list[str]:
    """The command lines of `vacancy` in a page's blocks of shell, without comments, pipes and variables before them."""
    found = []
    for block in SHELL.findall(page.read_text(encoding="utf-8")):
        joined = re.sub(r"\\\n\s*", " ", block)
        for line in joined.splitlines():
            started = re.match(r"^\s*(?:\$ )?(?:\w+=\S+ )*(?:docker compose run --rm |(?:\S*/)?)vacancy (.*)$", line)
            if started:
                found.append(re.split(r"\s+#\s|(?:^|\s)\|\s|\s>>?\s|\s&&\s|;\s*$|\s&$", started[1])[0])
    return found


@each_page
def test_the_command_line_takes_what_pages_show(page: Path) -> None:
    """Each command line in a block of shell has a command, options and arguments that there are."""
    for line in command_lines(page):
        if not line:  # the program alone, for its completion
            continue
        words = [word.replace("…", "1").replace("CONSUMER", str(uuid.UUID(int=1))) for word in shlex.split(line)]
        command: click.Command = cli
        context: click.Context | None = None
        try:
            while isinstance(command, click.Group):
                context = command.make_context("vacancy", list(words), parent=context)
                words = [*context._protected_args, *context.args]
                _, found, words = command.resolve_command(context, words)
                assert found is not None, line
                command = found
            command.make_context("vacancy", list(words), parent=context)
        except click.UsageError as error:
            raise AssertionError(f"{line}: {error.format_message()}") from None
        except click.exceptions.Exit:  # --help
            pass


RUN_BY = {
    "./test.sh": ".ci/run",
    "./up.sh": "bench/first_command.py",
    ".venv/bin/pytest": "test.sh",
    "$FLINK_HOME/bin/jobmanager.sh": "tests/harness/cluster.py",
    "$FLINK_HOME/bin/taskmanager.sh": "tests/harness/cluster.py",
    "flink": "tests/faults/test_cluster.py",
    "kafka-acls.sh": "tests/integration/test_security.py",
    "kafka-configs.sh": "tests/integration/test_security.py",
    "pg_dump": "tests/integration/test_backup.py",
    "pg_restore": "tests/integration/test_backup.py",
    "python": "tests/faults/ha_faults.py",
    "systemctl": "tests/integration/test_deploy.py",
    "vacancy-hot-traits": "tests/nova/test_hot_traits.py",
}
"""Programs that pages name in blocks of shell, with the file that runs them, or what they start, in that way."""
NOT_HERE = {
    "apt-get": "installs for root; test.sh installs the same packages",
    "cp": "copies the example of .env, whose contents tests/unit/test_deploy.py checks",
    "docker": "there is no engine for containers here; tests/unit/test_deploy.py checks the compose file",
    "eval": "completion of the reader's shell; tests/unit/test_config_command.py asks for completions",
    "export": "sets a variable in the reader's shell",
    "go": "records the answers of Kubernetes' libraries, by hand, since that needs the network",
    "install": "puts files into /etc; tests/integration/test_deploy.py checks the unit itself",
    "make": "the Makefile's targets are what .ci/run and developers use",
    "openstack": "there is no Keystone here; tests/nova has Nova and Placement alone",
    "pip": "installs from an index; tests/integration/test_wheel.py installs the wheel",
    "psql": "makes the roles, which `vacancy migrate` made on the tests' server",
    "python3.11": "makes a virtual environment, as test.sh does",
    "source": "completion of the reader's shell, as eval",
    "standalone-job.sh": "tests/unit/test_deploy.py runs deploy/compose/jobmanager.sh, with another in its place",
}
"""Programs that cannot be run here, or are not worth it, with the reason."""


def programs(page: Path) -> set[str]:
    """The programs that a page's blocks of shell run, without `vacancy`, whose lines have a test of their own."""
    found = set()
    for block in SHELL.findall(page.read_text(encoding="utf-8")):
        console = block.lstrip().startswith("$ ")
        for line in re.sub(
            r"\\\n\s*", " ", re.sub(r"<<\s*'?(\w+)'?\n.*?^\s*\1$", "", block, flags=re.M | re.S)
        ).splitlines():
            text = line.strip().removeprefix("# " if re.match(r"\s*# (apt|/opt)", line) else "")
            if console:
                if not text.startswith("$ "):
                    continue
                text = text.removeprefix("$ ")
            for part in re.split(r"&&|\|\||[;|]", re.split(r"(?:^|\s)#\s", text)[0]):
                words = [word for word in part.split() if not re.match(r"\w+=", word)]
                if words and not re.match(r"[\w.-]+:\d+$", words[0]):
                    found.add(re.sub(r"^(/opt/vacancy/bin|\.venv/bin)/(?=vacancy|pip|python)", "", words[0]))
    return found - {"vacancy"}


def test_every_program_in_a_block_of_shell_is_run_somewhere_or_has_a_reason() -> None:
    named = {program for page in PAGES for program in programs(page)}
    assert sorted(named - RUN_BY.keys() - NOT_HERE.keys()) == []
    assert sorted((RUN_BY.keys() | NOT_HERE.keys()) - named) == []
    assert [file for file in RUN_BY.values() if not (ROOT / file).exists()] == []


@each_page
def test_blocks_of_settings_are_settings(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of TOML whose sections are ours has no mistake."""
    for name in [name for name in os.environ if name.startswith("VACANCY_")]:
        monkeypatch.delenv(name)
    for number, block in enumerate(
        re.findall(r"^( *)```toml\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
    ):
        text = textwrap.dedent(block[1])
        document = tomllib.loads(text)
        if document.keys() <= Settings.model_fields.keys():
            file = tmp_path / f"{number}.toml"
            file.write_text(text, encoding="utf-8")
            load_settings(file)


FENCED = re.compile(r"^( *)```(\w*) *\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
CHECKED = {
    "sh": "here: each program has a test or a reason",
    "bash": "as sh",
    "console": "as sh",
    "toml": "here: settings are settings",
    "python": "tests/integration/test_pages.py runs it",
    "sql": "tests/integration/test_pages.py runs it",
    "yaml": "here: it can be read",
    "json": "here: it can be read",
    "ini": "here: it can be read",
    "properties": "tests/harness/secure.py starts a broker with it",
    "nginx": "there is no nginx here",
    "text": "made of the sources by tests/unit/test_reference.py",
    "": "a drawing, a listing or lines of a log, which nobody runs",
}
"""The languages of blocks, with who checks them, or why nobody does."""


@each_page
def test_every_block_is_run_or_checked_or_cannot_be(page: Path) -> None:
    for _, language, text in FENCED.findall(page.read_text(encoding="utf-8")):
        assert language in CHECKED, f"{page}: nobody checks blocks of {language!r}"
        if not language:
            commands = [
                line for line in text.splitlines() if re.match(r"\s*(\$ |vacancy [a-z]|python |pip |\./)", line)
            ]
            assert commands == [], f"{page}: these are commands; call the block sh"


@each_page
def test_blocks_of_data_can_be_read(page: Path) -> None:
    for _, language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        text = textwrap.dedent(block)
        if language == "yaml":
            assert all(isinstance(document, dict) for document in yaml.safe_load_all(text))
        elif language == "json":
            assert all(json.loads(line) for line in text.splitlines())
        elif language == "ini":
            parser = configparser.ConfigParser(strict=False, interpolation=None, inline_comment_prefixes=("#",))
            parser.read_string(text)
            assert all(parser[section] for section in parser.sections())
