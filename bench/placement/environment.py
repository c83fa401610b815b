"""Additional virtual environments, created once per user and lock file: Placement's, with its programs, and others.

What always holds: an environment in the cache is complete. It is created beside its final path and moved there
atomically, so that a kill leaves no incomplete one. If two processes create it at once, either result is used.
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
    """The interpreter of a lock file's environment; creating a missing environment takes about 10 s.

    Args:
        lock: Placement's lock file, or another one that includes Placement.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    home = platformdirs.user_cache_path("vacancy") / f"{lock.stem}-{digest}"
    interpreter = home / "bin" / "python"
    if not interpreter.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
        try:
            venv.create(unfinished, with_pip=True)
            # For about 100 packages uv needs seconds and pip minutes.
            install = [find_uv_bin(), "pip", "install", "-q", "--python", str(unfinished / "bin" / "python")]
            subprocess.run([*install, "--require-hashes", "--no-deps", "-r", str(lock)], check=True)
            unfinished.rename(home)
        except OSError:
            if not interpreter.exists():  # otherwise another process has just created it
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return interpreter


def configure(directory: Path, database_url: str) -> None:
    """Writes Placement's settings, which keep its defaults except for these; its log goes into the directory too.

    Args:
        directory: where to write them; :func:`command` takes it too.
        database_url: SQLAlchemy's URL; the first program that starts creates the tables.
    """
    file = directory / "placement.conf"
    file.touch(mode=0o600)  # the URL may hold a password
    file.write_text(
        "\n".join(
            [
                "[DEFAULT]",
                f"log_file = {directory / 'placement.log'}",
                "[api]",
                "auth_strategy = noauth2",  # there is no Keystone
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
    """Its environment variables: the settings' directory, and nothing that an operator's shell may set."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON"))}
    return ours | {"OS_PLACEMENT_CONFIG_DIR": str(directory), "PYTHONPATH": str(ROOT)}
