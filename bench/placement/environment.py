"""Virtual environments beside ours, made once a user and lock: Placement's, with programs that run in it, and others.

What always holds: an environment in the cache is complete. It is made beside its place and moved there in one step, so
that a kill leaves none that is half made, and of two that make it at once either is as good.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import venv
from pathlib import Path

import platformdirs
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "placement.lock"


def python(lock: Path = LOCK) -> Path:
    """The interpreter of a lock's environment, which is made if there is none: some 10 s.

    Args:
        lock: Placement's, or another whose environment has it too.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    home = platformdirs.user_cache_path("vacancy") / f"{lock.stem}-{digest}"
    interpreter = home / "bin" / "python"
    if not interpreter.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
        try:
            venv.create(unfinished, with_pip=True)
            # Of some 100 packages pip takes minutes to make what uv makes in seconds.
            install = [find_uv_bin(), "pip", "install", "-q", "--python", str(unfinished / "bin" / "python")]
            subprocess.run([*install, "--require-hashes", "--no-deps", "-r", str(lock)], check=True)
            unfinished.rename(home)
        except OSError:
            if not interpreter.exists():  # else another one was quicker
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return interpreter


def configure(directory: Path, database_url: str) -> None:
    """Writes Placement's settings, all but these its defaults; its log goes into the directory too.

    Args:
        directory: where, and what :func:`command` takes.
        database_url: SQLAlchemy's; the tables are made by the first program that starts.
    """
    file = directory / "placement.conf"
    file.touch(mode=0o600)  # the URL may hold a password
    file.write_text(
        "\n".join(
            [
                "[DEFAULT]",
                f"log_file = {directory / 'placement.log'}",
                "[api]",
                "auth_strategy = noauth2",  # no Keystone here
                "[placement_database]",
                f"connection = {database_url.replace('$', '$$')}",
                "sync_on_startup = True",
                "",
            ]
        ),
        encoding="utf-8",
    )


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a module of this package in Placement's environment."""
    return [str(python()), "-m", f"{__package__}.{module}", *arguments]


def variables(directory: Path) -> dict[str, str]:
    """The environment variables for it: the settings in a directory, and nothing that an operator's shell may set."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON"))}
    return ours | {"OS_PLACEMENT_CONFIG_DIR": str(directory), "PYTHONPATH": str(ROOT)}
