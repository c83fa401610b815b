"""The deployment files agree with each other and with the rest of the repository.

Each file is checked against its schema, its commands against the command line, its variables against the settings, and
its metrics against docs/metrics.md. tests/integration/test_deploy.py runs what can be run here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel

from tests.harness.manifests import KUBERNETES, each_overlay, rendered, schema_of
from vacancy.jobs.commands.cli import cli
from vacancy.jobs.settings import Settings, load_settings
from vacancy.schemas.units import parse_duration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNITS = {file.name: file.read_text(encoding="utf-8") for file in sorted((DEPLOY / "systemd").glob("*.service"))}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SECRETS_DIR = "/run/secrets"  # where Docker mounts them


def objects(*files: Path) -> Iterator[dict[str, Any]]:
    """Every object in these files."""
    for file in files:
        yield from yaml.safe_load_all(file.read_text(encoding="utf-8"))


def kubernetes() -> list[dict[str, Any]]:
    """Every object of the base, and the examples of secrets."""
    files = [file for file in sorted((KUBERNETES / "base").glob("*.yaml")) if file.stem != "kustomization"]
    return list(objects(*files, KUBERNETES / "secrets.example.yaml"))


def named(items: Iterable[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """One of them."""
    (found,) = [item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def pod(item: dict[str, Any]) -> dict[str, Any] | None:
    """The template of an object's pods; a FlinkDeployment's are merged into those that its operator makes."""
    spec = item.get("spec", {})
    found: dict[str, Any] | None = spec.get("template") or spec.get("podTemplate")
    return found


def example_env() -> dict[str, str]:
    """.env.example as compose reads it: later lines may use earlier ones."""
    result: dict[str, str] = {}
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            result[name] = re.sub(r"\$\{(\w+)\}", lambda match: result[match[1]], value)
    return result


def used_variables() -> set[str]:
    """The variables of .env that the compose file reads."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return set(re.findall(r"\$\{(\w+)", text)) | {secret["environment"] for secret in COMPOSE["secrets"].values()}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `vacancy` command line in the deployment files, with its place."""
    variables = example_env()
    for name, service in SERVICES.items():
        command = [*service.get("entrypoint", []), *service.get("command", [])]
        if len(command) > 1 and command[0] == "vacancy":
            filled = [re.sub(r"\$\{(\w+)[^}]*\}", lambda match: variables[match[1]], part) for part in command]
            yield f"docker-compose.yml: {name}", filled[1:]
    for found in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE):
        yield "Dockerfile", json.loads(found)[1:]
    for name, unit in UNITS.items():
        (start,) = re.findall(r"^ExecStart=/opt/vacancy/bin/vacancy (.*)$", unit, re.MULTILINE)
        yield name, start.split()
    for item in kubernetes():
        for container in item.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            yield f"{item['kind']} {item['metadata']['name']}", container["command"][1:]


def setting(variable: str) -> object:
    """The setting of a VACANCY_ variable; fails if there is none."""
    model: Any = Settings
    for part in variable.removeprefix("VACANCY_").lower().split("__"):
        assert isinstance(model, type), variable
        assert issubclass(model, BaseModel), variable
        assert part in model.model_fields, f"{variable}: no such setting"
        model = model.model_fields[part].annotation
    return model


def test_the_compose_file_is_what_its_schema_says() -> None:
    schema = json.loads((ROOT / "tests" / "harness" / "schemas" / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_the_dockerfile_has_nothing_that_hadolint_warns_of() -> None:
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    ended = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_dockerfile_is_shown_what_it_copies_and_no_env() -> None:
    shown = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert len(copied) > 6
    assert [name for name in copied if not any(fnmatch(name, pattern) for pattern in shown)] == []
    assert not any(fnmatch(".env", pattern) for pattern in shown)


def test_every_image_is_pinned() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM (\S+:\S+)", DOCKERFILE, re.MULTILINE)
    images += re.findall(r"image: (\S+)", "".join(path.read_text() for path in KUBERNETES.rglob("*.yaml")))
    assert len(images) > 12
    assert [image for image in images if not re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image)] == []


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("agent", {"agent", "scheduler", "extender", "web"}),
        ("libvirt", {"libvirt"}),
        ("flink", {"agent", "java", "job", "simulate"}),
    ],
)
def test_a_lock_of_an_image_has_what_its_extras_need(lock: str, extras: set[str]) -> None:
    """``make lock`` updates them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"]]
    for extra in (todo := [*extras]):
        for need in project["optional-dependencies"][extra]:
            if inner := re.match(r"vacancy\[(.*)\]", need):
                todo += inner[1].split(",")
            else:
                needed.append(need)
    names = {re.match(r"[\w-]+", need)[0].lower() for need in needed}  # type: ignore[index]  # it begins with a name
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    assert names - set(re.findall(r"^([\w-]+)==", text, re.MULTILINE)) == set()


def test_every_file_that_compose_hands_over_is_there() -> None:
    files = [config["file"] for config in COMPOSE["configs"].values()]
    files += [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    missing = [file for file in files if file not in COMPOSE["volumes"] and not (ROOT / file).exists()]
    assert missing == []
    for name, service in SERVICES.items():
        used = [config["source"] for config in service.get("configs", [])]
        assert set(used) <= COMPOSE["configs"].keys(), name
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys(), name


def test_a_service_waits_for_what_can_come_true() -> None:
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], name
            elif wait["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "on-failure", name
            else:
                assert wait["condition"] == "service_started", name


def test_passwords_are_files_and_stand_in_the_example_alone() -> None:
    examples = example_env()
    passwords = {name: value for name, value in examples.items() if name.endswith("PASSWORD")}
    assert passwords
    shipped = [
        ROOT / "docker-compose.yml",
        ROOT / "Dockerfile",
        *(file for file in DEPLOY.rglob("*") if file.is_file()),
    ]
    for file in shipped:
        text = file.read_text(encoding="utf-8")
        assert [value for value in passwords.values() if value in text] == [], file
        assert re.findall(r"\$\{?\w*(?:PASSWORD|DSN)", text) == [], file
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASS|SECRET|DSN", variable):
                assert str(value).startswith(SECRETS_DIR), f"{name}: {variable} is no file"
    for secret in COMPOSE["secrets"].values():
        assert set(secret) == {"environment"}


def test_the_example_has_what_compose_reads_and_nothing_else() -> None:
    direct = used_variables()
    made_of = {
        name
        for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
        if line.partition("=")[0] in direct
        for name in re.findall(r"\$\{(\w+)\}", line)
    }
    assert example_env().keys() == direct | made_of


@pytest.mark.parametrize(("where", "arguments"), [pytest.param(*item, id=item[0]) for item in commands()])
def test_the_command_line_takes_every_command(where: str, arguments: list[str]) -> None:
    del where
    command: click.Command = cli
    context: click.Context | None = None
    rest = arguments
    try:
        while isinstance(command, click.Group):
            context = command.make_context("vacancy", list(rest), parent=context)
            rest = [*context._protected_args, *context.args]
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None
            command = found
        command.make_context("vacancy", list(rest), parent=context)
    except click.exceptions.Exit:  # --help
        assert "--help" in arguments


def test_a_job_manager_goes_on_from_the_newest_complete_checkpoint_or_savepoint(tmp_path: Path) -> None:
    flink = tmp_path / "standalone-job.sh"
    flink.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    flink.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    script = ["sh", str(DEPLOY / "compose" / "jobmanager.sh")]

    def started() -> list[str]:
        environment = {"PATH": path, "STATE": str(tmp_path / "state")}
        return subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()

    first = started()
    assert "--fromSavepoint" not in first
    assert Path(first[first.index("-py") + 1]).samefile(ROOT / "jobs" / "flink" / "entry_point.py")
    for age, name in enumerate(("checkpoints/b/chk-7", "savepoints/savepoint-a", "checkpoints/a/chk-9")):
        (directory := tmp_path / "state" / name).mkdir(parents=True)
        (directory / "_metadata").touch()
        os.utime(directory / "_metadata", (1000 + age, 1000 + age))
        again = started()
        assert again[again.index("--fromSavepoint") + 1] == f"file://{directory}"
    (tmp_path / "state" / "checkpoints" / "a" / "chk-10").mkdir()  # it was being written
    assert started() == again


def test_every_variable_is_a_setting() -> None:
    files = [
        ROOT / "docker-compose.yml",
        ROOT / ".env.example",
        *(file for file in DEPLOY.rglob("*") if file.is_file()),
    ]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    variables = set(re.findall(r"\bVACANCY_\w+", text)) - {"VACANCY_SECRETS_DIR"}
    assert len(variables) > 8
    for variable in variables:
        setting(variable)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without VACANCY_ variables, and a directory for secrets."""
    for name in [name for name in os.environ if name.startswith("VACANCY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VACANCY_SECRETS_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "name", [name for name in SERVICES if "VACANCY_SECRETS_DIR" in SERVICES[name].get("environment", {})]
)
def test_a_service_of_compose_gets_its_settings(name: str, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, variables = SERVICES[name], example_env()
    for variable, value in service["environment"].items():
        if variable != "VACANCY_SECRETS_DIR":
            monkeypatch.setenv(variable, str(value))
    for secret in service.get("secrets", []):
        (clean / secret).write_text(variables[COMPOSE["secrets"][secret]["environment"]], encoding="utf-8")
    settings = load_settings(None)
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    for secret in service.get("secrets", []):
        section, _, key = secret.removeprefix("VACANCY_").lower().partition("__")
        variable = COMPOSE["secrets"][secret]["environment"]
        assert getattr(getattr(settings, section), key).get_secret_value() == variables[variable]


@each_overlay
@pytest.mark.parametrize(("name", "secret"), [("job", "vacancy-job"), ("agent", "vacancy-agent")])
def test_the_settings_for_kubernetes_are_settings(overlay: str, name: str, secret: str, clean: Path) -> None:
    file = clean.parent / f"{clean.name}.toml"
    text = named(rendered(overlay), "ConfigMap", "vacancy-settings")["data"][f"{name}.toml"]
    file.write_text(text, encoding="utf-8")
    for variable, value in named(kubernetes(), "Secret", secret)["stringData"].items():
        if overlay == "tls" or "KAFKA" not in variable:  # as the file says of these
            (clean / variable).write_text(value, encoding="utf-8")
    settings = load_settings(file)
    assert (settings.kafka.security.protocol == "SASL_SSL") == (overlay == "tls")
    assert settings.agent.collector == ("libvirt" if (overlay, name) == ("openstack", "agent") else "host")


def _is_kubernetes_own(item: dict[str, Any]) -> bool:
    group = item["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


@each_overlay
def test_kubernetes_takes_every_object(overlay: str) -> None:
    """By its own schemas; those of operators have tests of their own."""
    kinds = set()
    for item in rendered(overlay):
        if _is_kubernetes_own(item):
            kubernetes_validate.validate(item, "1.34", strict=True)
            kinds.add(item["kind"])
    assert kinds >= {"ConfigMap", "DaemonSet", "Deployment", "Job", "NetworkPolicy", "Service"}


@each_overlay
def test_the_operator_of_prometheus_takes_every_monitor(overlay: str) -> None:
    file = ROOT / "tests" / "harness" / "schemas" / "podmonitors-crd.json"
    schema = jsonschema.Draft7Validator(schema_of(json.loads(file.read_text(encoding="utf-8")), "v1"))
    monitors = [item for item in rendered(overlay) if item["kind"] == "PodMonitor"]
    assert {item["apiVersion"] for item in monitors} == {"monitoring.coreos.com/v1"}
    for item in monitors:
        schema.validate(item)
        misspelt = {"podMetricsEndpoints": [{"port": "metrics", "intervall": "30s"}]}
        with pytest.raises(jsonschema.ValidationError, match="intervall"):
            schema.validate(item | {"spec": item["spec"] | misspelt})


@each_overlay
def test_each_kind_has_a_schema_that_it_is_checked_by(overlay: str) -> None:
    """Kinds of operators have a test each; tests/integration/test_deploy.py has that of Flink's."""
    kinds = {item["kind"] for item in rendered(overlay) if not _is_kubernetes_own(item)}
    assert kinds == {"PodMonitor", "FlinkDeployment"}


@each_overlay
def test_whatever_pods_refer_to_is_there(overlay: str) -> None:
    """Secrets are in the examples, ConfigMaps in the overlay, mounts in the volumes, keys in the secrets."""
    items = rendered(overlay)
    secrets = {item["metadata"]["name"]: item["stringData"] for item in kubernetes() if item["kind"] == "Secret"}
    maps = {item["metadata"]["name"]: item["data"] for item in items if item["kind"] == "ConfigMap"}
    pods = [found["spec"] for found in map(pod, items) if found]
    assert len(pods) == 5
    for spec in pods:
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
                assert overlay == "tls" or volume["secret"]["secretName"] != "vacancy-tls"
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
        for container in spec["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes.keys()
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                assert source is None or source["key"] in secrets[source["name"]]
            for flag, value in pairwise(container.get("command", [])):
                if flag == "--config":
                    assert value.removeprefix("/etc/vacancy/settings/") in maps["vacancy-settings"]


@each_overlay
def test_selectors_probes_and_monitors_find_what_they_name(overlay: str) -> None:
    items = rendered(overlay)
    ports: dict[str, set[str]] = {}
    for item in items:
        template = pod(item)
        if template is None:
            continue
        # Flink's operator gives its pods the deployment's name as this label.
        app = template.get("metadata", {}).get("labels", {}).get("app", item["metadata"]["name"])
        names = {port["name"] for container in template["spec"]["containers"] for port in container.get("ports", [])}
        ports[app] = names
        for container in template["spec"]["containers"]:
            for probe in ("readinessProbe", "livenessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in names, app
    for item in items:
        if item["kind"] == "Service":
            assert {port["targetPort"] for port in item["spec"]["ports"]} <= ports[item["spec"]["selector"]["app"]]
        elif item["kind"] == "PodMonitor":
            wanted = {endpoint["port"] for endpoint in item["spec"]["podMetricsEndpoints"]}
            assert wanted <= ports[item["spec"]["selector"]["matchLabels"]["app"]], item["metadata"]["name"]
    monitored = {item["metadata"]["name"] for item in items if item["kind"] == "PodMonitor"}
    assert monitored == {"vacancy-agent", "vacancy-job", "vacancy-extender", "vacancy-web"}


def test_compute_nodes_of_openstack_have_an_agent_that_sees_their_instances() -> None:
    items = rendered("openstack")
    spec = named(items, "DaemonSet", "vacancy-agent")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "-libvirt:" in container["image"]
    assert "AS libvirt\n" in DOCKERFILE
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    hosts = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in spec["volumes"]}
    assert hosts[mounts["/run/libvirt"]] == "/run/libvirt"
    agent = tomllib.loads(named(items, "ConfigMap", "vacancy-settings")["data"]["agent.toml"])["agent"]
    for setting in ("host_id_file", "disk_path"):
        assert Path(agent[setting]).is_relative_to("/host/nova")
    assert hosts[mounts["/host/nova"]] == "/var/lib/nova"


def test_kube_scheduler_takes_its_configuration() -> None:
    file = Path(__file__).with_name("kubernetes") / "scheduler_configuration.json"
    schema = jsonschema.Draft202012Validator(json.loads(file.read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "other-schedulers.md").read_text(encoding="utf-8")
    texts = [
        (KUBERNETES / "scheduler-configuration.yaml").read_text(encoding="utf-8"),
        *re.findall(r"```yaml\n(.*?)```", page, re.DOTALL),
    ]
    for text in texts:
        configuration = yaml.safe_load(text)
        assert configuration["apiVersion"] == "kubescheduler.config.k8s.io/v1"
        schema.validate(configuration)
        configuration["extenders"][0]["filterVerbs"] = "filter"
        with pytest.raises(jsonschema.ValidationError, match="filterVerbs"):
            schema.validate(configuration)


def test_kube_scheduler_asks_the_extender_where_it_listens() -> None:
    (scheduler,) = objects(KUBERNETES / "scheduler-configuration.yaml")
    (extender,) = scheduler["extenders"]
    service = named(kubernetes(), "Service", "vacancy-extender")
    assert urlparse(extender["urlPrefix"]).port == service["spec"]["ports"][0]["port"]
    assert parse_duration(extender["httpTimeout"]) > load_settings(None).extender.answer_within
    page = (ROOT / "docs" / "other-schedulers.md").read_text(encoding="utf-8")
    assert (
        extender.keys() == yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])["extenders"][0].keys()
    )


def test_units_read_their_settings_as_credentials_alone() -> None:
    assert {name.removeprefix("vacancy-").removesuffix(".service") for name in UNITS} == {
        *("agent", "bridge", "extender", "job", "storage", "web"),
    }
    for name, unit in UNITS.items():
        assert "LoadCredential=vacancy.toml:/etc/vacancy/vacancy.toml" in unit, name
        assert "DynamicUser=yes" in unit, name
        for path in re.findall(r"/run/credentials/(\S+)", unit):
            service, credential = path.split("/")
            assert service == name
            assert f"LoadCredential={credential}:" in unit


def test_a_changed_password_of_the_database_s_owner_applies() -> None:
    """The service that sets it reaches the server through its socket, and before whoever needs the password."""
    owner = SERVICES["owner"]
    mounts = [volume for volume in owner["volumes"] if volume in SERVICES["postgres"]["volumes"]]
    assert [mount.split(":")[1] for mount in mounts] == [owner["environment"]["PGHOST"]]
    assert SERVICES["migrate"]["depends_on"] == {"owner": {"condition": "service_completed_successfully"}}
    assert "migrate" in SERVICES["logins"]["depends_on"]


DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def exists(figure: str) -> bool:
    """Whether a metric is in the exporter's query or on the page of metrics."""
    if figure.startswith("vacancy_freshness_"):
        query = yaml.safe_load((DEPLOY / "prometheus" / "postgres-exporter.yml").read_text())["vacancy_freshness"]
        return figure.removeprefix("vacancy_freshness_") in {name for gauge in query["metrics"] for name in gauge}
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return f"`{figure}`" in page or re.sub("_(bucket|sum|count)$", "", figure) in page


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_shows_figures_that_exist(file: Path) -> None:
    board = json.loads(file.read_text(encoding="utf-8"))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert panels
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            figures = set(re.findall(r"\b(?:vacancy|flink|pg)_\w+", target["expr"]))
            assert figures, panel["title"]
            assert [figure for figure in sorted(figures) if not exists(figure)] == [], panel["title"]


def test_dashboards_read_the_data_source_that_is_provisioned() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    uids = [uid for file in DASHBOARDS for uid in re.findall(r'"uid": "([^"]+)"', file.read_text(encoding="utf-8"))]
    boards = {json.loads(file.read_text(encoding="utf-8"))["uid"] for file in DASHBOARDS}
    assert set(uids) - boards == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "vacancy.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].startswith(
        provider["options"]["path"]
    )
