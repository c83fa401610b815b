"""Builds a release from the commit that is checked out, and checks it: ``make release``.

What always holds: the files depend on the commit alone. They are built twice, and are the same byte for byte; each time
stamp in them is the commit's. Nothing is published.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
INTO = ROOT / "build" / "release"
LOCKS = ("agent", "flink", "libvirt", "local")
FOLDERS = ("connectors", "jobs", "schemas", "topology")


def main() -> None:
    """Builds and checks, or says in one line what is wrong."""
    if said("git", "status", "--porcelain"):
        sys.exit("release: there are changes that are not committed; commit them, or put them away")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if not re.search(rf"^## {re.escape(version)} ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE):
        sys.exit(f"release: CHANGELOG.md has no section of {version}; cut it, or correct the version in pyproject.toml")
    INTO.mkdir(parents=True, exist_ok=True)
    for file in INTO.iterdir():
        file.unlink()
    with tempfile.TemporaryDirectory(prefix="vacancy-release-") as name:
        directory = Path(name)
        first, second = (build(directory / turn) for turn in ("first", "second"))
        if first != second:
            differ = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
            sys.exit(f"release: two builds differ in {', '.join(differ)}")
        for file, data in first.items():
            (INTO / file).write_bytes(data)
        check_contents(version)
        tools = installed(directory / "tools")
        subprocess.run([tools / "twine", "check", "--strict", *(INTO / file for file in first)], check=True)
        for lock in LOCKS:
            subprocess.run(
                [
                    *(tools / "cyclonedx-py", "requirements", ROOT / "requirements" / f"{lock}.lock"),
                    *("--pyproject", ROOT / "pyproject.toml", "--output-reproducible"),
                    *("--output-file", INTO / f"vacancy-{version}-{lock}.cdx.json"),
                ],
                # It warns that a lock has no graph of dependencies, which is so.
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
                check=True,
            )
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in sorted(INTO.iterdir())]
    (INTO / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")
    print(*sums, f"release {version} is in {INTO}; its tag would be v{version}", sep="\n")


def build(directory: Path) -> dict[str, bytes]:
    """The wheel and the source distribution, by name, built from a copy of the commit."""
    source, built = directory / "source", directory / "built"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(source, filter="data")
    epoch = said("git", "log", "-1", "--format=%ct")
    # setuptools takes times of files and the umask over into the archives.
    environment = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    for path in (source, *source.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        os.utime(path, (int(epoch), int(epoch)), follow_symlinks=False)
    pinned = ["--build-constraint", str(ROOT / "requirements" / "build.lock"), "--require-hashes"]
    command = [uv(), "build", "-q", "--sdist", "--wheel", "--out-dir", str(built), *pinned, str(source)]
    subprocess.run(command, env=environment, check=True, umask=0o022)
    return {
        file.name: normal(file.read_bytes(), int(epoch)) if file.suffix == ".gz" else file.read_bytes()
        for file in built.iterdir()
        if file.suffix in (".gz", ".whl")
    }


def normal(archive: bytes, epoch: int) -> bytes:
    """A source distribution with the time of the commit, without an owner, its members in order."""
    import gzip

    result = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as before,
        gzip.GzipFile(filename="", fileobj=result, mode="wb", mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as after,
    ):
        for member in sorted(before.getmembers(), key=lambda member: member.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = epoch
            member.pax_headers = {}
            after.addfile(member, before.extractfile(member) if member.isfile() else None)
    return result.getvalue()


def check_contents(version: str) -> None:
    """Both hold each file of the four folders, and the wheel nothing of the tests."""
    (wheel,), (source,) = INTO.glob("*.whl"), INTO.glob("*.tar.gz")
    tracked = [Path(name) for name in said("git", "ls-files", *FOLDERS).splitlines()]
    wanted = {f"{name}" for name in tracked if name.suffix != ".md"}
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("vacancy/") for name in archive.namelist()}
        entries = archive.read(f"vacancy-{version}.dist-info/entry_points.txt").decode()
    with tarfile.open(source) as tar:
        packed = {name.removeprefix(f"vacancy-{version}/") for name in tar.getnames()}
    lacking = sorted(wanted - names) + sorted(wanted - packed)
    strange = sorted(name for name in names if name.startswith(("tests/", "bench/", "docs/")))
    if lacking or strange or "vacancy = vacancy.jobs.commands.cli:main" not in entries:
        sys.exit(f"release: the archives lack {lacking[:5]} or hold {strange[:5]}, which they should not")


def uv() -> str:
    """The uv of the environment that runs this."""
    return str(Path(sys.executable).with_name("uv"))


def installed(directory: Path) -> Path:
    """The folder with the programs of requirements/release.lock, in an environment of their own."""
    subprocess.run([uv(), "venv", "-q", "--python", sys.executable, directory], check=True)
    lock = ROOT / "requirements" / "release.lock"
    python = directory / "bin" / "python"
    subprocess.run([uv(), "pip", "install", "-q", "--require-hashes", "--python", python, "-r", lock], check=True)
    return directory / "bin"


def said(*command: str) -> str:
    """What a command says, without the last newline."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
