"""What only the lean path promises: one call, bodies of known callers only, one reservation."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from headgate.core.lean_contract import HookPath
from tests.box import Box, policy, running_box, settlements
from tests.envoy.conftest import LIMITS, Upstream
from tests.envoy.fleet import fleet_to_start
from tests.envoy.test_budget import calls, counted
from tests.patience import PATIENCE_S, wait_until

WINDOWS = "[{count: requests, limit: 1000, per: year}, {count: tokens, limit: 100000, per: year}]"
CALLERS = 1_000
BODY_BYTES = 64 * 1024
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
DYING = (sys.executable, "-m", "tests.envoy.dies_after_reserving")


@pytest.fixture(scope="module")
def lean_box(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder: Path = tmp_path_factory.mktemp("lean")
    text = policy(upstream.url, limits=WINDOWS)
    with running_box(folder, text, "--path", "lean", "--body-limit", "4MiB") as box:
        yield box


def grown(box: Box, act: Callable[[], httpx.Response]) -> dict[str, int]:
    """How many calls one request took, from its start to its settlement by the log."""
    before = counted(box)
    box.record_of(act().headers["x-request-id"])
    return calls({name: value - before[name] for name, value in counted(box).items()})


@pytest.mark.parametrize("stream", [False, True], ids=["as it is", "rewritten"])
@pytest.mark.parametrize("tokens", [2, 200])
def test_a_request_costs_one_call_whatever_its_body_and_its_answer(
    lean_box: Box, stream: bool, tokens: int
) -> None:
    """A stream's body is rewritten here."""
    grew = grown(lean_box, lambda: lean_box.chat(stream=stream, max_tokens=tokens))

    assert grew == {"checks": 1, "streams": 0, "sent": 0, "received": 0, "limit calls": 0}


def test_only_a_request_that_holds_a_slot_costs_a_second_call(
    upstream: Upstream, tmp_path: Path
) -> None:
    """It frees its slot at once; the log would do it up to 200 ms later."""
    text = policy(upstream.url, limits=LIMITS)
    with running_box(tmp_path, text, "--path", "lean") as box:
        grew = grown(box, lambda: box.chat(stream=True))
        by_proxy = settlements(box.metrics(), "ratelimit")

    assert grew == {"checks": 1, "streams": 0, "sent": 0, "received": 0, "limit calls": 1}
    assert by_proxy == 1


async def answer_to(box: Box, head: str, body: bytes = b"") -> bytes:
    """The first line of the answer to a request that is sent so far."""
    port = int(box.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{HEAD}{head}\r\n".encode() + body)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.readline()
    finally:
        writer.close()


async def test_without_a_key_a_request_ends_at_its_headers(lean_box: Box) -> None:
    line = await answer_to(lean_box, "content-length: 1000000\r\n")

    assert b"401" in line


async def test_an_unknown_key_is_refused_once_its_body_is_there(lean_box: Box) -> None:
    line = await answer_to(lean_box, "x-api-key: unknown\r\ncontent-length: 2\r\n", b"{}")

    assert b"401" in line


async def test_a_thousand_unknown_callers_hold_no_more_than_what_they_have_sent(
    lean_box: Box,
) -> None:
    """Each has sent a piece of its body and never ends. Above the limit it would get 413."""
    port = int(lean_box.url.rpartition(":")[2])
    before = allocated_bytes(lean_box)
    request = f"{HEAD}x-api-key: unknown\r\ncontent-length: 1000000\r\n\r\n".encode()
    writers = []
    for _ in range(CALLERS):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request + b" " * BODY_BYTES)
        await writer.drain()
        writers.append(writer)

    def held() -> int | None:
        now = allocated_bytes(lean_box) - before
        return now if now > CALLERS * BODY_BYTES * 0.9 else None

    held_bytes = await asyncio.to_thread(wait_until, held, "the bodies to be held")
    for writer in writers:
        writer.close()

    assert held_bytes < 3 * CALLERS * BODY_BYTES
    assert lean_box.chat().status_code == 200


def allocated_bytes(box: Box) -> int:
    return box.stats()["server.memory_allocated"]


def test_a_replica_that_dies_between_reservation_and_answer_reserves_once(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Envoy asks another one, with the same id of the request."""
    text = policy(upstream.url, limits=WINDOWS)
    with fleet_to_start(tmp_path, text, upstream.url, 2, path=HookPath.LEAN) as fleet:
        fleet.start_services(1, program=DYING)
        fleet.start_services(2)
        fleet.start_envoy()
        answers = [fleet.chat() for _ in range(6)]
        died = fleet.processes["services"].poll()

    assert died is not None
    assert [answer.status_code for answer in answers] == [200] * 6
    left = int(answers[-1].headers["x-ratelimit-remaining-requests"])
    assert left == 1000 - 6


def test_a_check_without_the_readers_facts_is_refused(lean_box: Box) -> None:
    """As of a proxy that lacks the reader: its body cannot be decided on."""
    answer = httpx.post(
        f"{lean_box.url}/v1/chat/completions", headers=lean_box.headers(), content=b""
    )

    assert answer.status_code == 400
