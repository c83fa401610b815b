"""How long a stranger waits: the README's first command in a fresh clone, as a plain user, to a live page, twice.

    python -m bench.first_command                    # as the user `nobody`, if this runs as root
    python -m bench.first_command --picture docs/up.svg

It clones the commit into a directory of its own, with a home and caches of its own, so that everything is downloaded.
The terminal is a real one (a pty). ``--picture`` draws what the second run showed, with long pauses shortened, and
puts the recording beside it, for `asciinema play`.
"""

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

from bench.common import CONSOLE, save

ROOT = Path(__file__).parents[1]
COLUMNS, LINES = 100, 26
LIMIT_S = 900.0
STOP_S = 90.0
_PAUSE_S = 1.5
_SCHEDULABLE = 0.9
"""Of the simulated hosts; the others are disabled, or were made silent."""
_KEPT = ("LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX")
_PATH = "/usr/local/bin:/usr/bin:/bin"
"""What a plain user has: the Python of root's home is not part of it."""


class Shown(NamedTuple):
    """What a run showed: when, in seconds since its start, and what."""

    at_s: float
    text: str


@click.command()
@click.option("--hosts", default=1000, show_default=True)
@click.option("--user", default="nobody", show_default=True, help="The plain user, if this runs as root.")
@click.option("--live", "live_s", default=5.0, show_default=True, help="How long to stay at the live table, in s.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the second run, as SVG that moves.",
)
def main(hosts: int, user: str, live_s: float, picture: Path | None) -> None:
    """Times both runs and saves the result."""
    with tempfile.TemporaryDirectory(prefix="vacancy-first-") as name:
        home = Path(name)
        clone = home / "vacancy"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        identity = pwd.getpwnam(user) if os.getuid() == 0 else None
        if identity:
            for path in (home, *home.rglob("*")):
                os.chown(path, identity.pw_uid, identity.pw_gid, follow_symlinks=False)
        runs = []
        for which in ("first", "second"):
            shown = _run(clone, home, hosts, live_s, identity)
            runs.append({"run": which, **_moments(shown, hosts)})
            CONSOLE.print(runs[-1])
        mib = sum(file.stat().st_size for file in (clone / ".venv").rglob("*") if file.is_file()) >> 20
        if picture:
            shown = [one._replace(text=one.text.replace(str(home), "/home/you")) for one in shown]
            _write_cast(cast := picture.with_suffix(".cast"), shown)
            _draw(cast, picture)
    CONSOLE.print(save("first_command", {"hosts": hosts, "venv_mib": mib, "runs": runs}))


def _run(clone: Path, home: Path, hosts: int, live_s: float, identity: pwd.struct_passwd | None) -> list[Shown]:
    """Runs the first command until all hosts are in the table, and for a while; then Ctrl-C."""
    controller, terminal = pty.openpty()
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {
        "PATH": _PATH,
        "HOME": str(home),
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
        "LINES": str(LINES),
    }
    process = subprocess.Popen(
        ["./up.sh", "--hosts", str(hosts)],
        cwd=clone,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        user=identity.pw_uid if identity else None,
        group=identity.pw_gid if identity else None,
        extra_groups=[] if identity else None,
    )
    os.close(terminal)
    began = time.monotonic()
    shown: list[Shown] = []
    stop_at: float | None = None
    try:
        while process.poll() is None:
            at_s = time.monotonic() - began
            if at_s > LIMIT_S:
                raise SystemExit(f"after {LIMIT_S:.0f} s: {''.join(one.text for one in shown)[-2000:]}")
            if select.select([controller], [], [], 0.2)[0]:
                try:
                    shown.append(Shown(at_s, os.read(controller, 65_536).decode(errors="replace")))
                except OSError:
                    break  # the terminal is closed
            if stop_at is None and _all_there("".join(one.text for one in shown[-40:]), hosts, at_s):
                stop_at = at_s + live_s
            if stop_at is not None and at_s > stop_at:
                process.send_signal(signal.SIGINT)
                stop_at = float("inf")
        process.wait(STOP_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)
        os.close(controller)
    if process.returncode:
        raise SystemExit(f"status {process.returncode}: {''.join(one.text for one in shown)[-2000:]}")
    return shown


def _all_there(text: str, hosts: int, within_s: float) -> bool:
    """Whether the newest totals say that all hosts are in the table, with rows that this run wrote."""
    totals = re.findall(r"([\d,]+) hosts, ([\d,]+) schedulable[^;]*oldest ([\d.]+) s", text)
    if not totals:
        return False
    there, schedulable, oldest_s = (float(figure.replace(",", "")) for figure in totals[-1])
    return there == hosts + 1 and schedulable > _SCHEDULABLE * hosts and oldest_s < within_s


def _moments(shown: list[Shown], hosts: int) -> dict[str, Any]:
    """When it was installed, the page could be opened, all hosts were in the table, in s; how long each step took."""
    moments: dict[str, Any] = {}
    text = ""
    for at_s, more in shown:
        text += more
        if "installed_s" not in moments and "Data directory" in text:
            moments["installed_s"] = round(at_s, 1)
        if "page_s" not in moments and re.search(r"Fleet page +http://", text):
            moments["page_s"] = round(at_s, 1)
        if "all_hosts_s" not in moments and _all_there(text[-20_000:], hosts, at_s):
            moments["all_hosts_s"] = round(at_s, 1)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)
    steps = re.findall(r"(?:^|\r)(\w[\w ]*?)  +[^\r\n]+\((\d+\.\d) s\)", plain, re.MULTILINE)
    return moments | {"steps_s": {name: float(seconds) for name, seconds in steps}}


def _write_cast(file: Path, shown: list[Shown]) -> None:
    """An asciinema recording, version 2; what a spinner shows while nothing else comes is cut after a while."""
    lines = [json.dumps({"version": 2, "width": COLUMNS, "height": LINES, "title": "./up.sh"})]
    at_s = before_s = alone_s = 0.0
    for one in shown:
        since_s, before_s = one.at_s - before_s, one.at_s
        alone_s = 0.0 if "\n" in one.text else alone_s + since_s
        if alone_s > _PAUSE_S:
            continue
        at_s += min(since_s, _PAUSE_S)
        lines.append(json.dumps([round(at_s, 3), "o", one.text]))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw(cast: Path, picture: Path) -> None:
    """The recording as a picture that moves, drawn by a program in an environment of its own."""
    uv = Path(sys.executable).with_name("uv")
    drawing = [str(uv), "tool", "run", "--quiet", "--with", "setuptools<80", "termtosvg@1.1.0", "render"]
    still = ["--template", "gjm8", "--min-frame-duration", "250", "--loop-delay", "5000"]
    subprocess.run([*drawing, str(cast), str(picture), *still], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
