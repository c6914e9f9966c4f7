"""What Alertmanager sends: the pages and tickets that a person on call would get."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Message:
    """One alert, when it was first told and to whom: `page` or `ticket`."""

    at_s: float
    receiver: str
    labels: tuple[tuple[str, str], ...]

    def label(self, name: str) -> str:
        return dict(self.labels).get(name, "")


class Pager:
    """Keeps each alert's first message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def take(self, receiver: str, payload: dict[str, object]) -> None:
        """Takes the body of one webhook."""
        known = {(message.receiver, message.labels) for message in self.messages}
        for alert in payload["alerts"]:  # type: ignore[attr-defined]
            labels = tuple(sorted(alert["labels"].items()))
            if alert["status"] == "firing" and (receiver, labels) not in known:
                self.messages.append(Message(time.time(), receiver, labels))

    def got(self, receiver: str) -> list[Message]:
        return [message for message in self.messages if message.receiver == receiver]


@contextmanager
def running_pager() -> Iterator[tuple[Pager, str]]:
    """A pager, and the URL to which `/page` and `/ticket` are added."""
    pager = Pager()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            pager.take(self.path.strip("/"), json.loads(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield pager, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
