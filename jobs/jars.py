"""The jars of the local stack and of the job: downloaded by Maven coordinate, held to a committed lock.

What always holds: a jar is used only if its SHA-256 is the one in ``jars.lock.toml``, and a directory of jars holds
those of its group and no others, so that a class path is the same on every machine.

``python -m vacancy.jobs.jars lock`` writes the lock anew.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Literal, NamedTuple

import platformdirs

from vacancy.schemas.errors import VacancyError

Group = Literal["kafka", "flink", "ecj", "s3"]
LOCK_FILE = Path(__file__).with_name("jars.lock.toml")
TRIES = 3
PAUSE_SECONDS = 1.0
PARALLEL_DOWNLOADS = 4

# What the lock is made from. Each root is resolved on its own: resolved together, the dependency management of one
# replaces the versions of another, and the broker got the client library of an older Kafka.
_ROOTS_WITH_DEPENDENCIES = {
    "kafka": ["org.apache.kafka:kafka_2.13:4.3.1"],
}
_ROOTS_ALONE = {
    "kafka": ["org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"],  # its dependencies are the broker's too
    "flink": [
        "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
        "org.apache.flink:flink-sql-avro:2.3.0",  # Avro's library, with all that it needs, under Flink's names
        # Kafka's clients load it for batches in zstd. Java has gzip, Flink's own jar lz4 and snappy.
        "com.github.luben:zstd-jni:1.5.6-10",
        "org.postgresql:postgresql:42.7.14",
    ],
    "ecj": ["org.eclipse.jdt:ecj:3.38.0"],  # compiles our Java; runs on Java 17
    "s3": ["org.apache.flink:flink-s3-fs-native:2.3.0"],  # Flink's S3 plugin, for a cluster's plugins directory
}

Progress = Callable[[int, int, str], None]
"""Told after each jar: how many are there, of how many, and the jar's name."""
Download = Callable[[str, Path], Path]
"""Downloads one coordinate into a directory; the file it is in. Raises OSError or RuntimeError."""


class Jar(NamedTuple):
    """One line of the lock."""

    coordinate: str
    """Maven's ``group:artifact:version``."""
    sha256: str

    @property
    def file_name(self) -> str:
        """The name that Maven gives the file."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def locked(group: str, lock_file: Path = LOCK_FILE) -> list[Jar]:
    """The jars of a group, in the order of the lock."""
    entries = tomllib.loads(lock_file.read_text(encoding="utf-8"))[group]
    return [Jar(entry["coordinate"], entry["sha256"]) for entry in entries]


def default_directory(group: str, lock_file: Path = LOCK_FILE) -> Path:
    """Where a user keeps a group's jars: one directory per content of the lock, shared by all data directories."""
    content = hashlib.sha256("".join(jar.sha256 for jar in locked(group, lock_file)).encode()).hexdigest()
    return platformdirs.user_cache_path("vacancy") / "jars" / f"{group}-{content[:12]}"


def ensure_jars(
    group: Group | str,
    directory: Path | None = None,
    progress: Progress | None = None,
    *,
    lock_file: Path = LOCK_FILE,
    download: Download | None = None,
) -> list[Path]:
    """A group's jars in a directory (None: the user's), downloaded where missing; safe when two run at once.

    Raises:
        VacancyError: names the jar that has another sum, that is not in the lock, or that could not be had.
    """
    jars = locked(group, lock_file)
    directory = directory or default_directory(group, lock_file)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VacancyError(f"{directory}: cannot be made for the jars: {error.strerror}") from None
    files = {jar.file_name: directory / jar.file_name for jar in jars}
    for extra in sorted(file.name for file in directory.glob("*.jar") if file.name not in files):
        raise VacancyError(f"{directory / extra}: not one of the {group} jars in {lock_file.name}; remove it")
    missing = [jar for jar in jars if not files[jar.file_name].exists()]
    for jar in jars:
        if jar not in missing and _sha256(files[jar.file_name]) != jar.sha256:
            raise VacancyError(
                f"{files[jar.file_name]}: its SHA-256 is not the one in {lock_file.name}; remove it to have it "
                "downloaded again"
            )
    for done, jar in enumerate(_download_all(missing, directory, download or _download), len(jars) - len(missing) + 1):
        if progress is not None:
            progress(done, len(jars), jar.file_name)
    return list(files.values())


def _download_all(jars: Sequence[Jar], directory: Path, download: Download) -> Iterator[Jar]:
    """Puts jars into a directory, a few at once; yields each when it is there."""
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS, thread_name_prefix="jars") as executor:
        futures = {executor.submit(_download_one, jar, directory, download): jar for jar in jars}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        finally:
            executor.shutdown(cancel_futures=True)


def _download_one(jar: Jar, directory: Path, download: Download) -> None:
    """Downloads a jar beside its place and moves it there once its sum is right."""
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
        # A directory of its own, so that neither a killed download nor a parallel one leaves half a jar behind.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".partial-") as partial:
            try:
                file = download(jar.coordinate, Path(partial))
                if _sha256(file) == jar.sha256:
                    file.replace(directory / jar.file_name)
                    return
                reason = "its SHA-256 is not the one in the lock"
            except (OSError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {str(error)[:200]}"
    raise VacancyError(
        f"{jar.coordinate}: not downloaded in {TRIES} tries ({reason}); check the network, or put {jar.file_name} "
        f"into {directory}"
    )


def _download(coordinate: str, directory: Path) -> Path:
    from jgo.maven import MavenContext  # needed only where something is missing

    group, artifact, version = coordinate.split(":")
    file: Path = MavenContext(repo_cache=directory).project(group, artifact).at_version(version).artifact().resolve()
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_lock(lock_file: Path = LOCK_FILE) -> None:
    """Resolves the roots and writes the coordinates and sums of all their jars."""
    import jgo

    lines = [
        "# The jars of the local stack and of the job, with their sums.",
        "# Written by `python -m vacancy.jobs.jars lock`; do not edit.",
    ]
    with tempfile.TemporaryDirectory() as directory:
        for group, alone in _ROOTS_ALONE.items():
            coordinates = list(alone)
            for root in _ROOTS_WITH_DEPENDENCIES.get(group, []):
                coordinates += [f"{jar.groupId}:{jar.artifactId}:{jar.version}" for jar in jgo.resolve(root)]
            for coordinate in sorted(coordinates):
                sha256 = _sha256(_download(coordinate, Path(directory)))
                lines += ["", f"[[{group}]]", f'coordinate = "{coordinate}"', f'sha256 = "{sha256}"']
    lock_file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python -m vacancy.jobs.jars lock")
    write_lock()
