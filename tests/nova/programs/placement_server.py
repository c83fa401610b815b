"""Placement over HTTP until stdin ends: Placement's WSGI application with one thread per request. Prints its port."""

from __future__ import annotations

import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from placement import wsgi


class Server(ThreadingMixIn, WSGIServer):
    """Answers several requests at once."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs nothing, since Placement logs requests itself."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *args: object) -> None:
        """Not to stderr."""


def main() -> None:
    """Serves."""
    application = wsgi.init_application()
    with make_server("127.0.0.1", 0, application, server_class=Server, handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
