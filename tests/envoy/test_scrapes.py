"""Slow or broken scrapers change nothing for clients, and nothing for a good scraper."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.box import Box, metric, policy, running_box
from tests.envoy.conftest import Upstream

SLOW = 100
REQUESTS = 20
PAGES = ("/metrics", "/stats/prometheus")


@pytest.fixture
def box(upstream: Upstream, tmp_path: Path) -> Iterator[Box]:
    with running_box(tmp_path, policy(upstream.url)) as running:
        yield running


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "GET {page} HTTP/1.1\r\nhost: a\r\n",
        "GET {page} HTTP/1.1\r\nhost: a\r\n\r\n" * 50,
        "GET {page} HTTP/9.9\r\n\r\n",
    ],
    ids=["silent", "half a request", "reads nothing", "nonsense"],
)
def test_slow_scrapers_change_nothing_for_clients_and_records(box: Box, sent: str) -> None:
    with ExitStack() as stack:
        for number in range(SLOW):
            scraper = stack.enter_context(connected(box.admin_url))
            scraper.sendall(sent.format(page=PAGES[number % 2]).encode())

        statuses = {box.chat().status_code for _ in range(REQUESTS)}
        records = box.wait_records(REQUESTS)
        page = box.metrics()

    assert statuses == {200}
    assert [record["source"] for record in records] == ["usage"] * REQUESTS
    assert metric(page, 'headgate_records_total{outcome="written"}') == REQUESTS


def connected(url: str) -> socket.socket:
    """A connection that takes little before its reader has read."""
    parsed = httpx.URL(url)
    scraper = socket.socket()
    scraper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    scraper.connect((parsed.host, parsed.port))
    return scraper
