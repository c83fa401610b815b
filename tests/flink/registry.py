"""A schema registry, as far as a decoder asks one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def running_registry(schemas: Mapping[int, str], credentials: str) -> Iterator[str]:
    """The URL of a registry that has some schemas by id, for whoever has the credentials (user:password)."""
    authorization = "Basic " + base64.b64encode(credentials.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server spells it so
            place, _, number = self.path.rpartition("/")
            status, body = 404, {"error_code": 404, "message": "HTTP 404 Not Found"}
            if self.headers["Authorization"] != authorization:
                status, body = 401, {"error_code": 401, "message": "Unauthorized"}
            elif place == "/schemas/ids" and int(number) in schemas:
                status, body = 200, {"schema": schemas[int(number)]}
            elif place == "/schemas/ids":
                body = {"error_code": 40403, "message": f"Schema {number} not found"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # its name there
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
