"""Placement's API without a server: Placement's WSGI application is called in this process."""

from __future__ import annotations

from typing import Any

from placement import wsgi
from webob import Request

_HEADERS = {"X-Auth-Token": "admin", "Accept": "application/json", "OpenStack-API-Version": "placement 1.39"}
OWNER = {"project_id": "vacancy", "user_id": "vacancy", "consumer_type": "INSTANCE"}
"""Further fields that every allocation needs."""


class Api:
    """The application with the settings in ``OS_PLACEMENT_CONFIG_DIR``; Placement allows one per process."""

    def __init__(self) -> None:
        self._application = wsgi.init_application()

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of a request."""
        request = Request.blank(path, method=method, headers=_HEADERS)
        if body is not None:
            request.json_body = body
            request.content_type = "application/json"
        response = request.get_response(self._application)
        return response.status_code, response.body

    def allocate(self, consumer: str, provider: str, resources: dict[str, int]) -> tuple[int, bytes]:
        """Asks for an allocation of a new consumer."""
        return self.allocate_parts(consumer, {provider: resources})

    def allocate_parts(self, consumer: str, resources: dict[str, dict[str, int]]) -> tuple[int, bytes]:
        """The same from several providers, all or nothing; resources by provider."""
        allocations = {provider: {"resources": amounts} for provider, amounts in resources.items()}
        body = {"allocations": allocations, "consumer_generation": None, **OWNER}
        return self("PUT", f"/allocations/{consumer}", body)


def expect(answer: tuple[int, bytes], *statuses: int) -> bytes:
    """The body of an answer with one of these statuses.

    Raises:
        RuntimeError: the answer has another status.
    """
    status, body = answer
    if status not in statuses:
        raise RuntimeError(f"Placement answered {status}: {body.decode()[:500]}")
    return body
