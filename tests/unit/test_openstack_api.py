"""Requests to OpenStack's APIs end, also where nobody answers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from vacancy.connectors.openstack import api
from vacancy.schemas.errors import VacancyError


def test_a_keystone_that_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file sets no timeout, as most do not."""
    monkeypatch.setattr(api, "_LIMIT_S", 0.3)
    # It takes connections, and never reads.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        file = tmp_path / "nova.conf"
        file.write_text(
            f"[placement]\nauth_type = password\nauth_url = {url}/v3\nusername = vacancy\npassword = x\n"
            "project_name = service\nuser_domain_id = default\nproject_domain_id = default\n",
            encoding="utf-8",
        )
        with pytest.raises(VacancyError, match=r"Nova's API, GET /os-services.*timed out"):
            api.connect(api.read_conf(file)).services()
