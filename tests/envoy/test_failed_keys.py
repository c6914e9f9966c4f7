"""An address that keeps coming without a known key: what it gets, and what stays of it."""

import socket
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.box import KEYS, Box, metric, small_chat
from tests.patience import PATIENCE_S

DECISIONS = 'headgate_decisions_total{decision="%s",hook="ext_authz"}'


@pytest.fixture(scope="module")
def client(box: Box) -> Iterator[httpx.Client]:
    """One client for all requests of this module."""
    with httpx.Client(base_url=box.url) as made:
        yield made


def ask(client: httpx.Client, key: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return client.post("/v1/chat/completions", json=small_chat(), headers=headers)


def test_after_30_failures_it_is_429_and_a_known_key_still_passes(
    box: Box, client: httpx.Client
) -> None:
    """Room comes back at one in two seconds, so a slow machine may see a few more."""
    codes = [ask(client, "sk-wrong").status_code for _ in range(60)]
    known = ask(client, KEYS["alice"])
    box.record_of(known.headers["x-request-id"])
    records = box.wait_records(codes.count(401) + 1)

    assert codes[:30] == [401] * 30
    assert set(codes) == {401, 429}
    assert known.status_code == 200
    recorded = sorted(record["status"] for record in records)
    assert recorded == [200] + [401] * codes.count(401)
    assert metric(box.metrics(), DECISIONS % "too_many_failures") == codes.count(429)


def test_the_official_client_does_not_try_again(box: Box, client: httpx.Client) -> None:
    while ask(client, "sk-wrong").status_code != 429:
        pass
    before = metric(box.metrics(), DECISIONS % "too_many_failures")
    with (
        openai.OpenAI(base_url=f"{box.url}/v1", api_key="sk-wrong", max_retries=5) as stranger,
        pytest.raises((openai.RateLimitError, openai.AuthenticationError)),
    ):
        stranger.models.list()
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key=KEYS["alice"]) as known:
        assert [model.id for model in known.models.list()]

    assert metric(box.metrics(), DECISIONS % "too_many_failures") <= before + 1


WEBSOCKET = (
    b"GET /v1/responses HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: AAAA\r\nsec-websocket-version: 13\r\n%b\r\n"
)


def status_of(box: Box, request: bytes) -> int:
    """The status of one raw request on a connection of its own."""
    host, _, port = box.url.rpartition("/")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return int(answer.readline().split()[1])


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"GET /v1/models HTTP/1.0\r\nhost: a\r\n\r\n", {426}),
        (WEBSOCKET % b"", {426, 429}),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", {400}),
        (b"GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n", {400}),
    ],
    ids=["http-1.0", "websocket", "no-host", "bad-path"],
)
def test_requests_without_a_key_leave_a_bounded_number_of_records(
    box: Box, request_bytes: bytes, statuses: set[int]
) -> None:
    """Room comes back at one in two seconds, so a slow machine may see some more."""
    before = len(box.records())
    assert {status_of(box, request_bytes) for _ in range(120)} <= statuses
    known = box.chat()
    box.record_of(known.headers["x-request-id"])
    time.sleep(1)

    assert len(box.records()) - before < 80


def test_a_websocket_with_a_known_key_is_refused_at_once(box: Box) -> None:
    key = f"authorization: Bearer {KEYS['alice']}\r\n".encode()
    assert status_of(box, WEBSOCKET % key) == 426


def test_options_and_health_checks_are_not_counted(box: Box, client: httpx.Client) -> None:
    page = {"origin": "https://a.example.org", "access-control-request-method": "POST"}
    for _ in range(50):
        assert client.options("/v1/chat/completions", headers=page).status_code == 405
        assert client.get("/health").status_code == 200
    known = box.chat()
    box.record_of(known.headers["x-request-id"])

    asked = {(record["method"], record["path"]) for record in box.records()}
    assert not {pair for pair in asked if pair[0] == "OPTIONS" or pair[1] == "/health"}
