"""A collector of spans that is away, silent, slow or late: only spans are lost."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from headgate.core.lean_contract import HookPath
from headgate.dataplane.tracing import COLLECTOR
from tests.box import Box, policy, running_box
from tests.envoy.conftest import Upstream
from tests.otlp import receiver
from tests.patience import wait_until

CHATS = 20
_ALL_WINDOWS_OPEN = bytes.fromhex("000006040000000000 00047fffffff 000004080000000000 7fff0000")
"""SETTINGS and WINDOW_UPDATE with the largest windows: no rule of HTTP/2 stops the sender."""
_PAUSE_S = 0.01

Collector = Callable[[], AbstractContextManager[str]]


@contextmanager
def away() -> Iterator[str]:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def reading(size_bytes: int) -> Iterator[str]:
    """A collector that reads so much in each pause, and never answers a call or a ping."""
    over = threading.Event()

    def read(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(_ALL_WINDOWS_OPEN)
            while not over.wait(_PAUSE_S) and (not size_bytes or connection.recv(size_bytes)):
                pass

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                readers.submit(read, listener.accept()[0])

    with socket.socket() as listener, ThreadPoolExecutor() as readers:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        readers.submit(accept, listener)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


def silent() -> AbstractContextManager[str]:
    """It takes connections and never reads from them."""
    return reading(0)


def slow() -> AbstractContextManager[str]:
    return reading(16)


@contextmanager
def late() -> Iterator[str]:
    """A real server of gRPC that answers no call before it ends."""
    over = threading.Event()
    with receiver(before=over.wait) as running:
        try:
            yield running.url
        finally:
            over.set()


def served(box: Box) -> None:
    """Some chats: each has its answer and its record."""
    answers = [box.chat() for _ in range(CHATS)]
    records = box.wait_records(CHATS)
    assert {answer.status_code for answer in answers} == {200}
    sent = {answer.headers["x-request-id"] for answer in answers}
    assert {record["request_id"] for record in records} == sent
    assert {record["source"] for record in records} == {"usage"}


def stat(box: Box, name: str) -> int:
    """A number of the collector's cluster; 0 while Envoy has none."""
    return box.stats().get(f"cluster.{COLLECTOR}.{name}", 0)


def all_messages_ended(box: Box) -> bool:
    open_messages = ("upstream_rq_active", "upstream_rq_pending_active")
    return stat(box, "upstream_rq_total") > 0 and not any(stat(box, n) for n in open_messages)


@pytest.mark.parametrize("path", HookPath)
def test_a_collector_that_is_away_costs_no_answer_and_no_record(
    path: HookPath, upstream: Upstream, tmp_path: Path
) -> None:
    with (
        away() as url,
        running_box(tmp_path, policy(upstream.url), "--otlp", url, "--path", path) as box,
    ):
        served(box)


def test_messages_to_a_collector_that_answers_late_end(upstream: Upstream, tmp_path: Path) -> None:
    with late() as url, running_box(tmp_path, policy(upstream.url), "--otlp", url) as box:
        served(box)
        wait_until(lambda: all_messages_ended(box), "the end of all messages to the collector")
        assert stat(box, "upstream_rq_max_duration_reached") > 0


@pytest.mark.parametrize("collector", [silent, slow])
def test_the_connection_to_a_collector_that_reads_too_slowly_ends_with_all_that_waits_in_it(
    collector: Collector, upstream: Upstream, tmp_path: Path
) -> None:
    """Such a collector answers no ping of HTTP/2."""
    with collector() as url, running_box(tmp_path, policy(upstream.url), "--otlp", url) as box:
        served(box)
        wait_until(lambda: all_messages_ended(box), "the end of all messages to the collector")
        wait_until(lambda: stat(box, "upstream_cx_destroy_local") > 0, "the connection's end")
