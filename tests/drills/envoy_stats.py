"""Envoy's own metrics over TCP, for a Prometheus: a box shows them on a unix socket only.

They are served only while the admin port answers, so that services that hang hide them too.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from tests.box import Box


@contextmanager
def served_stats(box: Box) -> Iterator[str]:
    """The address, as HOST:PORT; the metrics are at /stats/prometheus."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                httpx.get(f"{box.admin_url}/healthz", timeout=4).raise_for_status()
                text = box.envoy_admin("/stats/prometheus").encode()
            except httpx.HTTPError:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
