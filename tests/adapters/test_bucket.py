"""Sources in S3: what the agent asks the store for, and what it never does.

The store here is a small HTTP server. `make test-s3` has the same agent read from a real one.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from headgate.adapters.files.bucket import in_buckets
from headgate.adapters.files.check import Fit
from headgate.adapters.files.disk import AdapterDisk
from headgate.adapters.files.origin import OriginAwayError, UnfitError
from headgate.adapters.source import read_place
from tests.adapters.files import write_adapter, write_base

FIT = Fit(8, ("org/tiny",))
PLACE = "s3://adapters/acme"


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def always(status: int, body: bytes = b"", **headers: str) -> Callable[[str], Answer]:
    """One answer for all paths."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _path: (status, named, body)


class Server(ThreadingHTTPServer):
    """Answers every GET by `answer`, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = always(404)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body = self.server.answer(urlsplit(self.path).path)
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@dataclass
class Store:
    """A store of files by path, and the disk of an agent that reads its bucket."""

    server: Server
    disk: AdapterDisk
    folder: Path
    files: dict[str, bytes] = field(default_factory=dict)
    moved: list[tuple[int, int]] = field(default_factory=list)

    def copy(self, source: str) -> None:
        def moved(copied_bytes: int, size_bytes: int) -> None:
            self.moved.append((copied_bytes, size_bytes))

        self.disk.copy("sql@1", source, FIT, moved)


@pytest.fixture(name="server")
def running_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


other_server = pytest.fixture(running_server.__wrapped__, name="other")


@pytest.fixture
def store(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    values = {"ACCESS_KEY_ID": "reader", "SECRET_ACCESS_KEY": "s3cret", "REGION": "eu-central-1"}
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    (tmp_path / "pod").mkdir()
    with httpx.Client(trust_env=False) as http:
        sources = in_buckets([read_place(PLACE)], server.url, http)
        disk = AdapterDisk(sources, tmp_path / "pod", write_base(tmp_path))
        store = Store(server, disk, tmp_path / "pod")
        adapter = write_adapter(tmp_path / "sql")
        for path in adapter.iterdir():
            store.files[f"/adapters/acme/sql/{path.name}"] = path.read_bytes()
        server.answer = lambda path: (
            (200, {}, store.files[path]) if path in store.files else (404, {}, b"<Error/>")
        )
        yield store


def test_an_adapter_is_copied_from_a_bucket_by_signed_requests(store: Store) -> None:
    store.copy("s3://adapters/acme/sql")
    for path, data in store.files.items():
        assert (store.folder / "sql@1" / path.rpartition("/")[2]).read_bytes() == data
    whole = sum(map(len, store.files.values()))
    assert store.moved[-1] == (whole, whole)
    for asked in store.server.asked:
        [credential] = parse_qs(urlsplit(asked).query)["X-Amz-Credential"]
        assert credential.startswith("reader/")
        assert "/eu-central-1/s3/" in credential
        assert "s3cret" not in asked


@pytest.mark.parametrize(
    "source", ["s3://adapters/globex/sql", "s3://others/acme/sql", "s3://adapters/acme-2/sql"]
)
def test_a_source_outside_of_the_allowed_prefix_asks_nobody(store: Store, source: str) -> None:
    with pytest.raises(UnfitError, match="reads below s3://adapters/acme, and so not"):
        store.copy(source)
    assert store.server.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(store: Store, other: Server, status: int) -> None:
    """Not even one to the same host: S3 tells a wrong region in this way."""
    store.server.answer = always(status, location=f"{other.url}/x")
    with pytest.raises(OriginAwayError, match=f"the store answers {status}"):
        store.copy("s3://adapters/acme/sql")
    assert len(store.server.asked) == 1
    assert other.asked == []


def test_a_missing_file_is_missing_for_good_and_an_error_of_the_store_is_not(store: Store) -> None:
    with pytest.raises(UnfitError, match=r"no s3://adapters/acme/law/adapter_config.json"):
        store.copy("s3://adapters/acme/law")
    store.server.answer = always(503, b"<Error>SlowDown</Error>")
    with pytest.raises(OriginAwayError, match="the store answers 503"):
        store.copy("s3://adapters/acme/sql")


def test_a_file_that_says_to_be_huge_is_not_read(store: Store) -> None:
    name = "adapter_model.safetensors"
    store.server.answer = lambda path: (
        (200, {"content-length": str(2**40)}, b"")
        if path.endswith(name)
        else (200, {}, store.files[path])
    )
    with pytest.raises(UnfitError, match=f"{name} is larger than"):
        store.copy("s3://adapters/acme/sql")


def test_a_file_that_ends_early_leaves_nothing_that_vllm_could_load(store: Store) -> None:
    name = "adapter_model.safetensors"

    def cut(path: str) -> Answer:
        data = store.files[path]
        if not path.endswith(name) or len(store.server.asked) <= 2:
            return 200, {}, data
        return 200, {"content-length": str(len(data)), "connection": "close"}, data[:-1]

    store.server.answer = cut
    with pytest.raises(OriginAwayError) as caught:
        store.copy("s3://adapters/acme/sql")
    assert "X-Amz" not in str(caught.value)
    assert store.disk.versions() == []


def test_an_answer_that_is_none_is_told_without_the_signed_url(store: Store) -> None:
    store.server.answer = always(200, content_length="nonsense")
    with pytest.raises(OriginAwayError) as caught:
        store.copy("s3://adapters/acme/sql")
    assert "X-Amz" not in str(caught.value)


def test_neither_the_services_nor_the_command_load_the_client_of_s3() -> None:
    code = "import sys, headgate.cli, headgate.program.services; print('obstore' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert (done.stdout, done.stderr) == ("False\n", "")
