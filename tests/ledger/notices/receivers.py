"""A webhook receiver and a mail server that keep what they get, and fail when they are told to."""

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hook:
    """Requests that came, and the status of the next answers."""

    url: str = ""
    status: int = 200
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def hook_receiver() -> Iterator[Hook]:
    """An HTTP server on a free port of this machine."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            hook.got.append(({name.lower(): one for name, one in self.headers.items()}, body))
            self.send_response(hook.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        hook.url = f"http://127.0.0.1:{port}/hook?token=s3cret"
        yield hook


@dataclass
class Inbox:
    """Messages that came, the commands of all sessions, and the answer to RCPT."""

    port: int = 0
    rcpt: str = "250 ok"
    messages: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None) -> Iterator[Inbox]:
    """An SMTP server (RFC 5321) on a free port; with `tls` it offers STARTTLS and a login."""
    inbox = Inbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 test")
            while line := self.rfile.readline().decode().rstrip("\r\n"):
                inbox.commands.append(line)
                word = line.split(" ")[0].upper()
                if word == "QUIT":
                    return self.say("221 bye")
                if word == "DATA":
                    self.say("354 go on")
                    inbox.messages.append(self.message())
                    self.say("250 taken")
                elif word == "STARTTLS" and tls is not None:
                    self.say("220 go on")
                    self.wrap(tls)
                else:
                    self.say(self.answer(word))
            return None

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def answer(self, word: str) -> str:
            if word == "EHLO":
                offered = "" if tls is None else "250-STARTTLS\r\n250-AUTH PLAIN\r\n"
                return f"250-test\r\n{offered}250 8BITMIME"
            return {"RCPT": inbox.rcpt, "AUTH": "235 in"}.get(word, "250 ok")

        def message(self) -> str:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.decode())
            return "".join(lines)

        def wrap(self, context: ssl.SSLContext) -> None:
            self.request = context.wrap_socket(self.request, server_side=True)
            self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with serving(Server(("127.0.0.1", 0), Handler)) as port:
        inbox.port = port
        yield inbox


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """Serves in a thread; yields the port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[index]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
