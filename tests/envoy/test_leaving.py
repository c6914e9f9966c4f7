"""Clients that leave while their check runs: the lean path gives back what it reserved for them."""

import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import KEYS, metric, policy, started_up
from tests.envoy.conftest import Upstream
from tests.envoy.fleet import Fleet, fleet_to_start
from tests.patience import wait_until

CLIENTS = 40
LATE = (sys.executable, "-m", "tests.envoy.answers_late")
BODY = b'{"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"Hi"}]}'
REQUEST = (
    f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEYS['bob']}\r\n"
    f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
).encode() + BODY
WINDOWS = """
      - {count: requests, limit: 1000, per: year}
      - {count: tokens, limit: 100000, per: year}
      - {count: concurrent, limit: 500}
"""
SLICED = WINDOWS.replace("per: year}", "per: year, slice: 300}")
EMPTY = {"requests": 0, "tokens": 0, "concurrent": 0}


def ask_and_leave(url: str, pages: Callable[[], Sequence[str]]) -> None:
    """`CLIENTS` of bob's ask at once, and leave once the services have reserved for all of them."""

    def reserved() -> int:
        name = 'headgate_decisions_total{decision="ok",hook="ratelimit"}'
        return sum(int(metric(page, name)) for page in pages())

    host, _, port = url.removeprefix("http://").partition(":")
    before = reserved()
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            client = socket.create_connection((host, int(port)))
            stack.enter_context(closing(client)).sendall(REQUEST)
        wait_until(lambda: reserved() == before + CLIENTS, "the reservations")


def in_use(url: str) -> dict[str, int]:
    """The use of each limit by `GET /v1/headgate/limits`, by the thing that it counts."""
    headers = {"authorization": f"Bearer {KEYS['alice']}"}
    limits = httpx.get(f"{url}/v1/headgate/limits", headers=headers).json()["data"]
    return {limit["count"]: limit["used"] for limit in limits}


def test_one_box_gives_back_what_clients_held_who_left_during_their_check(
    upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "headgate.yaml").write_text(policy(upstream.url, limits=WINDOWS))
    options = ("--policy", "headgate.yaml", "--path", HookPath.LEAN)
    with started_up(tmp_path, *options, program=LATE) as box:
        ask_and_leave(box.url, lambda: [box.metrics()])
        wait_until(lambda: in_use(box.url) == EMPTY, "what they held")

        assert box.chat().status_code == 200


@pytest.mark.parametrize("limits", [WINDOWS, SLICED], ids=["each request", "slices"])
def test_replicas_give_back_what_clients_held_who_left_during_their_check(
    upstream: Upstream, tmp_path: Path, limits: str
) -> None:
    """The checks go to both replicas in turn, the log to one of them."""
    text = policy(upstream.url, limits=limits)
    with fleet_to_start(tmp_path, text, upstream.url, 2, path=HookPath.LEAN) as fleet:
        for number in fleet.numbers:
            fleet.start_services(number, program=LATE)
        fleet.start_envoy()
        ask_and_leave(fleet.url, lambda: [*map(fleet.metrics, fleet.numbers)])
        wait_until(lambda: in_use(fleet.url) == EMPTY, "what they held")
        wait_until(lambda: held_in(fleet) == 0, "the slices to go back")

        assert fleet.chat().status_code == 200


def held_in(fleet: Fleet) -> int:
    """The reservations of requests, and the slices, that Redis holds for anyone."""
    with closing(fleet.redis.client()) as client:
        return sum(client.hget(name, "state") == "held" for name in client.keys("{hg:*}r:*"))
