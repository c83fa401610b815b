"""The functions' jar matches its sources, is complete, and is built once. The compiler is faked here."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vacancy.jobs.flink import job_jars
from vacancy.jobs.flink.job_jars import Sources, functions_jar, java_sources
from vacancy.jobs.jars import ensure_jars, locked
from vacancy.schemas.errors import VacancyError

SOURCES: Sources = {"a/B.java": b"class B", "a/A.java": b"class A"}


class Compiler:
    """Writes for each source file a class file with the same content, and counts calls."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, files: list[Path], classes: Path) -> None:
        self.runs += 1
        for file in files:
            target = classes / file.parent.name / f"{file.stem}.class"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())


def test_a_jar_is_built_once_and_holds_its_classes_in_order_without_dates(tmp_path: Path) -> None:
    compiler = Compiler()
    jars = [functions_jar(SOURCES, tmp_path, compile_files=compiler) for _ in range(2)]
    assert compiler.runs == 1
    assert jars[0] == jars[1]
    with zipfile.ZipFile(jars[0]) as archive:
        assert [(entry.filename, entry.date_time[0]) for entry in archive.infolist()] == [
            ("a/A.class", 1980),
            ("a/B.class", 1980),
        ]
        assert archive.read("a/B.class") == b"class B"
    assert list(jars[0].parent.iterdir()) == [jars[0]]


def test_the_same_sources_give_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    first = functions_jar(SOURCES, tmp_path / "first", compile_files=Compiler())
    second = functions_jar(dict(reversed(list(SOURCES.items()))), tmp_path / "second", compile_files=Compiler())
    assert first.read_bytes() == second.read_bytes()
    assert first.relative_to(tmp_path / "first") == second.relative_to(tmp_path / "second")


def test_another_source_or_another_compiler_has_another_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = functions_jar(SOURCES, tmp_path, compile_files=Compiler())
    changed = functions_jar({**SOURCES, "a/B.java": b"class B "}, tmp_path, compile_files=Compiler())
    other = [locked("ecj")[0]._replace(sha256="0" * 64)]
    monkeypatch.setattr(job_jars, "locked", lambda group: other if group == "ecj" else [])
    recompiled = functions_jar(SOURCES, tmp_path, compile_files=Compiler())
    assert len({jar, changed, recompiled}) == 3


def test_what_does_not_compile_leaves_nothing(tmp_path: Path) -> None:
    def refuse(files: list[Path], classes: Path) -> None:
        raise VacancyError(f"{files[0].name} {classes.name}")

    with pytest.raises(VacancyError, match=r"A\.java classes"):
        functions_jar(SOURCES, tmp_path, compile_files=refuse)
    assert [file for file in tmp_path.rglob("*") if not file.is_dir()] == []
    assert functions_jar(SOURCES, tmp_path, compile_files=Compiler()).exists()


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as executor:
        jars = list(executor.map(lambda _: functions_jar(SOURCES, tmp_path, compile_files=Compiler()), range(8)))
    assert len(set(jars)) == 1
    assert zipfile.ZipFile(jars[0]).testzip() is None


def test_a_compiler_with_another_sum_is_named(tmp_path: Path) -> None:
    (jar,) = locked("ecj")
    (tmp_path / jar.file_name).write_bytes(b"tampered")
    with pytest.raises(VacancyError, match=rf"{jar.file_name}: its SHA-256 is not the one in"):
        ensure_jars("ecj", tmp_path)


def test_no_java_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setattr(job_jars, "ensure_jars", lambda _: [tmp_path / "ecj.jar"])
    with pytest.raises(VacancyError, match=r"bin/java: No such file or directory; set JAVA_HOME to a Java 17"):
        functions_jar(SOURCES, tmp_path / "jars")


def test_the_source_is_shipped_with_the_package() -> None:
    assert "vacancy/HostWindowFunction.java" in java_sources()
