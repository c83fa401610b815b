"""A standalone Flink cluster for the tests: a JobManager and TaskManagers as processes, from the apache-flink wheel.

Each is started by Flink's own scripts, with a configuration of its own; kill one with :meth:`Member.kill`, start it
again with :meth:`Member.start`. Two TaskManagers of two slots each hold a job of parallelism 2 with one to spare.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Self

from tests.harness.waiting import wait_until
from vacancy.jobs import ports
from vacancy.jobs.flink.job_jars import flink_home, flink_jars, java_home

START_SECONDS = 120.0
"""A JVM's start takes some 3 s on two idle cores, and several times that on busy ones."""
END_SECONDS = 30.0
SLOTS = 2
"""Of each TaskManager."""


class Member:
    """A process of the cluster, with all that it starts: a TaskManager has its Python workers below it."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.output = log
        script, *arguments = command
        self._arguments = [str(flink_home() / "bin" / script), "start-foreground", *map(str, arguments)]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The JVM's process id: the scripts end in exec."""
        assert self._process is not None
        return self._process.pid

    @property
    def resource_id(self) -> str:
        """What its cluster calls a TaskManager, since its last start; empty until it knows."""
        said = re.findall(r"with ResourceID: (\S+)", self.output.read_text(encoding="utf-8"))
        return str(said[-1]) if said else ""

    def start(self) -> None:
        """Starts it, or starts it again, once the workers that a dead TaskManager has left behind are gone."""
        self._kill_group()
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self._environment),
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether its JVM has ended."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """kill -9 of the JVM alone; what it has started is left to notice by itself."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """Ends it, and all of its group."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
        self._kill_group()

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # nothing is left
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Waits until the JVM has ended."""
        assert self._process is not None
        self._process.wait(END_SECONDS)


class FlinkCluster:
    """A cluster in a directory of its own; a context manager that leaves nothing running.

    Args:
        task_managers: how many.
        configuration: further options of Flink's for the whole cluster.
        plugins: jars by the name of the plugin that they are.
        application: the settings file of the job, if the cluster is to be for it alone.
        jars: whether it holds the job's jars, as an image does; with an application it does anyway.
        high_availability: whether a ZooKeeper keeps what the JobManager knows, so that the next one goes on.
        job_managers: how many; with more than one, which takes high availability, one leads and the others wait.
    """

    def __init__(
        self,
        task_managers: int = 2,
        configuration: Mapping[str, str] | None = None,
        plugins: Mapping[str, Path] | None = None,
        application: Path | None = None,
        *,
        jars: bool = False,
        high_availability: bool = False,
        job_managers: int = 1,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vacancy-flink-"))
        self.port = ports.free_port()
        self.url = f"http://{ports.HOST}:{self.port}"
        self.conf = self.directory / "conf"
        self._write_configuration(configuration or {})
        if high_availability:
            self._add_zookeeper(configuration or {})
        for name, jar in (plugins or {}).items():
            place = self.directory / "plugins" / name
            place.mkdir(parents=True)
            shutil.copy(jar, place)
        self.logs.mkdir()
        self._lib = flink_home() / "lib"
        job_manager: list[str | Path] = ["jobmanager.sh"]
        if application or jars:
            self._lib = self._linked_lib()
        if application:
            driver = "org.apache.flink.client.python.PythonDriver"
            python = (
                "-pyclientexec",
                sys.executable,
                "-py",
                str(resources.files("vacancy.jobs.flink").joinpath("entry_point.py")),
            )
            job_manager = ["standalone-job.sh", "-j", driver, *python, "--config", application]
        self.left_down: set[Member] = set()
        """Members that the supervisor does not start again for now."""
        self._servers = []
        if high_availability:
            self._servers = [self._member("zookeeper", ["zookeeper.sh", "1"])]
        self.job_manager = self._member("jobmanager", job_manager)
        self.job_managers = [self.job_manager]
        self.urls = [self.url]
        for number in range(1, job_managers):
            port = ports.free_port(self.port)
            self.job_managers.append(self._member(f"jobmanager-{number}", [*job_manager, ports.HOST, str(port)]))
            self.urls.append(f"http://{ports.HOST}:{port}")
        self.task_managers = [
            self._member(f"taskmanager-{number}", ["taskmanager.sh"]) for number in range(task_managers)
        ]

    def _member(self, name: str, command: Sequence[str | Path]) -> Member:
        return Member(name, command, self.logs / f"{name}.log", self.environment)

    def _linked_lib(self) -> Path:
        """Flink's jars and ours, as an image has them."""
        lib = self.directory / "lib"
        lib.mkdir()
        # flink-python runs a Python program; a job manager needs it in application mode.
        python_jars = (flink_home() / "opt").glob("flink-python-*.jar")
        for jar in [*(flink_home() / "lib").glob("*.jar"), *flink_jars(), *python_jars]:
            (lib / jar.name).symlink_to(jar)
        return lib

    @property
    def logs(self) -> Path:
        """What its members say, a file each."""
        return self.directory / "logs"

    @property
    def members(self) -> list[Member]:
        """All of its processes."""
        return [*self._servers, *self.job_managers, *self.task_managers]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of Flink's scripts, `flink` too."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("VACANCY_", "FLINK_"))}
        return ours | {
            "JAVA_HOME": str(java_home()),
            "FLINK_CONF_DIR": str(self.conf),
            "FLINK_LOG_DIR": str(self.logs),
            "FLINK_PID_DIR": str(self.directory),
            "FLINK_PLUGINS_DIR": str(self.directory / "plugins"),
            "FLINK_LIB_DIR": str(self._lib),
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # Ctrl-C, too, must leave nothing running
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until all of its slots are there."""
        for member in self.members:
            member.start()
        self.wait_for_slots(len(self.task_managers) * SLOTS)

    def stop(self) -> None:
        """Ends all of its processes, and removes its directory."""
        for member in reversed(self.members):
            member.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Starts what has ended again, as whoever runs a cluster does.

        Flink ends a TaskManager whose job does not close (FLINK-38180), as the database's sink while it cannot write.
        """
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.5):
                for member in self.members:
                    if member.ended and member not in self.left_down:
                        member.start()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def wait_for_slots(self, slots: int) -> None:
        """Waits until it has so many slots."""
        wait_until(lambda: self.slots() == slots, START_SECONDS, f"the cluster is not up; see {self.logs}")

    def slots(self) -> int:
        """How many slots it has, used or free; 0 while its JobManager is away."""
        try:
            return int(self.ask("/overview")["slots-total"])
        except OSError:
            return 0

    def ask(self, path: str, url: str | None = None) -> Any:
        """What its REST interface answers, that of the first JobManager unless a URL is given."""
        with urllib.request.urlopen((url or self.url) + path, timeout=10) as response:  # noqa: S310  # our own
            return json.load(response)

    def cancel_jobs(self) -> None:
        """Cancels all of its jobs, and waits until they have ended."""

        def running() -> list[str]:
            ended = ("FINISHED", "CANCELED", "FAILED")
            return [job["jid"] for job in self.ask("/jobs/overview")["jobs"] if job["state"] not in ended]

        for job_id in running():
            cancel = urllib.request.Request(f"{self.url}/jobs/{job_id}?mode=cancel", method="PATCH")  # noqa: S310
            urllib.request.urlopen(cancel, timeout=10).close()  # noqa: S310  # our own
        wait_until(lambda: not running(), END_SECONDS, f"jobs do not end; see {self.logs}")

    def flink(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs Flink's own command line."""
        return subprocess.run(
            [str(flink_home() / "bin" / "flink"), *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )

    def _add_zookeeper(self, more: Mapping[str, str]) -> None:
        """Sets up the ZooKeeper that comes with Flink, and has the cluster use it; `more` is there already."""
        port, *others = (ports.free_port(self.port) for _ in range(3))
        zookeeper: dict[str, object] = {
            "tickTime": 500,  # no session may be shorter than two of them
            "initLimit": 10,
            "syncLimit": 5,
            "dataDir": self.directory / "zookeeper",
            "clientPort": port,
            "clientPortAddress": ports.HOST,
            "admin.enableServer": "false",
            "server.1": ":".join(map(str, (ports.HOST, *others))),
        }
        options: dict[str, object] = {
            "high-availability.type": "zookeeper",
            "high-availability.zookeeper.quorum": f"{ports.HOST}:{port}",
            # By default it fills a quarter of the machine before it collects.
            "zookeeper.heap.mb": 64,
            "high-availability.storageDir": (self.directory / "high-availability").as_uri(),
            # A JobManager that is gone leads on for as long as its session lasts; the default is 1 min.
            "high-availability.zookeeper.client.session-timeout": "5 s",
        }
        (self.conf / "zoo.cfg").write_text("".join(f"{k}={v}\n" for k, v in zookeeper.items()), encoding="utf-8")
        with (self.conf / "config.yaml").open("a", encoding="utf-8") as file:
            file.writelines(f"{k}: {v}\n" for k, v in options.items() if k not in more)

    def shows(self, job_id: str) -> dict[str, str]:
        """What it shows of a job: `flink list`, REST answers and logs, by the place where it shows it."""
        job = f"/jobs/{job_id}"
        paths = ["/config", "/jobmanager/config", "/jobmanager/environment", "/jobs/overview", "/taskmanagers", job]
        paths += [f"{job}/{part}" for part in ("config", "plan", "exceptions", "checkpoints", "checkpoints/config")]
        paths += [f"{job}/jobmanager/{part}" for part in ("config", "environment")]
        paths += [f"{job}/vertices/{vertex['id']}" for vertex in self.ask(job)["vertices"]]
        shown = {path: json.dumps(self.ask(path)) for path in paths}
        shown |= {str(log): log.read_text(encoding="utf-8") for log in self.logs.iterdir()}
        listed = self.flink("list")
        assert job_id in listed.stdout
        shown["flink list"] = listed.stdout + listed.stderr
        return shown

    def _write_configuration(self, more: Mapping[str, str]) -> None:
        shutil.copytree(flink_home() / "conf", self.conf)
        file = self.conf / "config.yaml"
        java_options = re.search(r"^ +all: (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert java_options is not None
        quick, temporary = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1", self.directory / "tmp"
        options: dict[str, str] = {
            "env.java.opts.all": f"{java_options[1]} {quick} -Djava.io.tmpdir={temporary}",
            "jobmanager.rpc.address": ports.HOST,
            "jobmanager.rpc.port": str(ports.free_port(self.port)),
            "jobmanager.bind-host": ports.HOST,
            "jobmanager.memory.process.size": "1024m",
            "taskmanager.host": ports.HOST,
            "taskmanager.bind-host": ports.HOST,
            "taskmanager.numberOfTaskSlots": str(SLOTS),
            "taskmanager.memory.process.size": "1792m",
            "taskmanager.memory.managed.size": "256m",
            # Each restart of a job loads its jars anew, and PostgreSQL's driver keeps the former ones from going.
            "taskmanager.memory.jvm-metaspace.size": "512m",
            "rest.address": ports.HOST,
            "rest.bind-address": ports.HOST,
            "rest.port": str(self.port),
            # A TaskManager that is gone is found out within seconds; the defaults are 10 s and 50 s.
            "heartbeat.interval": "1 s",
            "heartbeat.timeout": "8 s",
            # Each TaskManager has a part of the job, so that whichever is left knows all of its code already.
            "taskmanager.load-balance.mode": "SLOTS",
            **more,
        }
        temporary.mkdir()
        file.write_text("".join(f"{key}: {value}\n" for key, value in options.items()), encoding="utf-8")
