"""The jars match the lock file; otherwise an error names the jar that does not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vacancy.jobs import jars
from vacancy.jobs.jars import LOCK_FILE, default_directory, ensure_jars, locked
from vacancy.schemas.errors import VacancyError

CONTENTS = {"org.a:first:1.0": b"first", "org.b:second:2.0": b"second"}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    file = tmp_path / "lock.toml"
    file.write_text(
        "".join(
            f'[[group]]\ncoordinate = "{coordinate}"\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
            for coordinate, content in CONTENTS.items()
        ),
        encoding="utf-8",
    )
    return file


class Repository:
    """Replaces the network: returns contents, and counts calls."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.asked: Counter[str] = Counter()

    def __call__(self, coordinate: str, directory: Path) -> Path:
        self.asked[coordinate] += 1
        if coordinate not in self.contents:
            raise ConnectionError("no route to host")
        file = directory / "downloaded"
        file.write_bytes(self.contents[coordinate])
        return file


def test_missing_jars_are_downloaded_once_in_the_order_of_the_lock(tmp_path: Path, lock_file: Path) -> None:
    repository, seen = Repository(CONTENTS), []
    for _ in range(2):
        files = ensure_jars(
            "group",
            tmp_path / "jars",
            lambda done, count, jar: seen.append((done, count, jar)),
            lock_file=lock_file,
            download=repository,
        )
    assert [file.read_bytes() for file in files] == [b"first", b"second"]
    assert [file.name for file in files] == ["first-1.0.jar", "second-2.0.jar"]
    assert set(repository.asked.values()) == {1}
    assert [(done, count) for done, count, _ in seen] == [(1, 2), (2, 2)]
    assert sorted(path.name for path in (tmp_path / "jars").iterdir()) == ["first-1.0.jar", "second-2.0.jar"]


def test_a_jar_with_another_sum_is_named(tmp_path: Path, lock_file: Path) -> None:
    ensure_jars("group", tmp_path / "jars", lock_file=lock_file, download=Repository(CONTENTS))
    (tmp_path / "jars" / "second-2.0.jar").write_bytes(b"tampered")
    with pytest.raises(VacancyError, match=r"second-2\.0\.jar: its SHA-256 is not the one in lock\.toml"):
        ensure_jars("group", tmp_path / "jars", lock_file=lock_file, download=Repository(CONTENTS))


def test_a_jar_that_is_not_in_the_lock_is_named(tmp_path: Path, lock_file: Path) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "log4j-1.2.jar").touch()
    with pytest.raises(VacancyError, match=r"log4j-1\.2\.jar: not one of the group jars"):
        ensure_jars("group", tmp_path / "jars", lock_file=lock_file, download=Repository(CONTENTS))


def test_a_jar_that_cannot_be_had_is_named_after_a_few_tries(tmp_path: Path, lock_file: Path) -> None:
    repository = Repository({"org.a:first:1.0": b"first"})
    with pytest.raises(VacancyError, match=r"org\.b:second:2\.0: not downloaded in 3 tries .*no route to host"):
        ensure_jars("group", tmp_path / "jars", lock_file=lock_file, download=repository)
    assert repository.asked["org.b:second:2.0"] == jars.TRIES


def test_a_download_with_another_sum_is_named_and_not_kept(tmp_path: Path, lock_file: Path) -> None:
    repository = Repository(CONTENTS | {"org.a:first:1.0": b"half of fir"})
    with pytest.raises(VacancyError, match=r"org\.a:first:1\.0: .*SHA-256"):
        ensure_jars("group", tmp_path / "jars", lock_file=lock_file, download=repository)
    assert not (tmp_path / "jars" / "first-1.0.jar").exists()


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path, lock_file: Path) -> None:
    def ensure(_: int) -> list[Path]:
        return ensure_jars("group", tmp_path / "jars", lock_file=lock_file, download=Repository(CONTENTS))

    with ThreadPoolExecutor(8) as executor:
        results = list(executor.map(ensure, range(8)))
    assert all(result == results[0] for result in results)


def test_another_lock_has_another_directory(lock_file: Path) -> None:
    before = default_directory("group", lock_file)
    other_sum = hashlib.sha256(b"third").hexdigest()
    lock = lock_file.read_text(encoding="utf-8").replace(hashlib.sha256(b"second").hexdigest(), other_sum)
    lock_file.write_text(lock, encoding="utf-8")
    assert default_directory("group", lock_file) != before


@pytest.mark.parametrize("group", ["kafka", "flink", "ecj"])
def test_the_committed_lock_holds_each_artifact_once_with_its_sum(group: str) -> None:
    entries = locked(group)
    artifacts = Counter(entry.coordinate.rpartition(":")[0] for entry in entries)
    assert set(artifacts.values()) == {1}
    assert all(re.fullmatch(r"[0-9a-f]{64}", entry.sha256) for entry in entries)


def test_the_broker_has_the_client_library_of_its_own_version() -> None:
    assert [
        jar.coordinate for jar in locked("kafka") if jar.coordinate.startswith("org.apache.kafka:kafka-clients:")
    ] == ["org.apache.kafka:kafka-clients:4.3.1"]


def test_the_lock_names_no_place_to_download_from() -> None:
    assert "://" not in LOCK_FILE.read_text(encoding="utf-8")
