"""A fake Prometheus: its HTTP API over real HTTP, with answers in the shapes of Prometheus 2.42.

It knows no PromQL. `values` maps a query to its value; what is not in it has no series.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

NOW_S = 1_790_000_000.25


class FakePrometheus(ThreadingHTTPServer):
    """Keeps the forms that it was asked with."""

    def __init__(
        self,
        values: Mapping[str, str],
        raw: tuple[int, bytes] | None,
        ranges: Mapping[str, Any],
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.values = values
        self.raw = raw
        self.ranges = ranges
        self.asked: list[dict[str, list[str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakePrometheus
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.server.asked.append(form)
        status, body = self.server.raw or (200, self._answer(form["query"][0]))
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, query: str) -> bytes:
        data: dict[str, Any] = {"resultType": "vector", "result": []}
        if query == "time()":
            data = {"resultType": "scalar", "result": [NOW_S, str(NOW_S)]}
        elif self.path.endswith("/query_range"):
            data = {"resultType": "matrix", "result": self.server.ranges.get(query, [])}
        elif query in self.server.values:
            data["result"] = [{"metric": {}, "value": [NOW_S, self.server.values[query]]}]
        return json.dumps({"status": "success", "data": data}).encode()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake_prometheus(
    values: Mapping[str, str] = {},
    raw: tuple[int, bytes] | None = None,
    ranges: Mapping[str, Any] = {},
) -> Iterator[FakePrometheus]:
    """Serves on a free port; `raw` is a status and a body for every question.

    `ranges` maps the query of a range to its series.
    """
    server = FakePrometheus(values, raw, ranges)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
