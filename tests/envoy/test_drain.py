"""The end of one box with requests in flight: they end or are cut, and each is recorded and settled
with what its client got."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.core.contract import Counting
from tests.box import Box, policy, running_box, small_chat
from tests.envoy.conftest import started_simulator
from tests.patience import PATIENCE_S, wait_until
from tests.redis_server import RedisServer, running_redis

LIMITS = """
      - {count: tokens, limit: 50000000, per: day}
      - {count: concurrent, limit: 50, lease_s: 3600}
"""
STREAMS = 4


@dataclass(frozen=True)
class Answer:
    """The events with output that a client got, and whether its stream came to its end."""

    request_id: str
    events: int
    is_whole: bool


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    with started_simulator("--model", "tiny", "--adapter", "lora-a") as url:
        yield url


@contextmanager
def box_with(
    store: str, folder: Path, simulator: str, *options: str
) -> Iterator[tuple[Box, RedisServer | None]]:
    text = policy(simulator, limits=LIMITS)
    if store == "memory":
        with running_box(folder, text, *options) as box:
            yield box, None
        return
    with running_redis() as redis:
        more = ["--store", redis.url, "--store-deadline-ms", "20000"]
        with running_box(folder, text, *more, *options) as box:
            yield box, redis


def stream(box: Box, tokens: int, interval_s: float) -> Answer:
    body = {**small_chat(), "stream": True, "max_tokens": tokens}
    headers = {**box.headers(), "x-simulate": f"interval={interval_s}"}
    events, is_whole, request_id = 0, False, ""
    try:
        with httpx.stream(
            "POST", f"{box.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S
        ) as answer:
            assert answer.status_code == 200, answer.read()
            request_id = answer.headers["x-request-id"]
            for line in answer.iter_lines():
                is_whole |= line == "data: [DONE]"
                events += has_output(line)
    except httpx.RemoteProtocolError:
        pass
    return Answer(request_id, events, is_whole)


def has_output(line: str) -> bool:
    if not line.startswith("data: {"):
        return False
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return any(choice["delta"].get("content") for choice in choices)


@contextmanager
def streams(box: Box, tokens: int, interval_s: float) -> Iterator[list[Future[Answer]]]:
    """Streams that all have begun."""
    with ThreadPoolExecutor(STREAMS) as pool:
        futures = [pool.submit(stream, box, tokens, interval_s) for _ in range(STREAMS)]
        wait_until(lambda: active(box) == STREAMS, "the streams")
        yield futures


def active(box: Box) -> int:
    return box.stats().get("cluster.model_tiny.upstream_rq_active", 0)


def recorded(box: Box, answers: list[Answer]) -> list[dict[str, Any]]:
    """The records of these answers; each has exactly one."""
    by_id = {record["request_id"]: record for record in box.records()}
    assert len(by_id) == len(box.records())
    return [by_id[answer.request_id] for answer in answers]


def assert_settled(redis: RedisServer | None, charged: int) -> None:
    """No slot is taken, and the limit counts what the records say."""
    if redis is None:
        return
    with closing(redis.client()) as client:
        assert [key for key in client.keys("*l:*") if client.zcard(key)] == []
        assert [int(client.get(key)) for key in client.keys("*c:*")] == [charged]


STORES = pytest.mark.parametrize("store", ["memory", "redis"])


@STORES
def test_streams_end_within_the_drain_and_are_charged_as_always(
    store: str, tmp_path: Path, simulator: str
) -> None:
    with box_with(store, tmp_path, simulator, "--drain-s", str(PATIENCE_S)) as (box, redis):
        with streams(box, tokens=60, interval_s=0.05) as futures:
            box.process.send_signal(signal.SIGTERM)
            answers = [future.result() for future in futures]
        assert box.process.wait(PATIENCE_S) == 0
        records = recorded(box, answers)
        assert_settled(redis, sum(r["prompt_tokens"] + r["completion_tokens"] for r in records))

    assert all(answer.is_whole for answer in answers)
    assert [(r["source"], r["completion_tokens"]) for r in records] == [("usage", 60)] * STREAMS


@STORES
@pytest.mark.parametrize("counting", Counting)
def test_streams_that_run_longer_are_cut_recorded_and_settled(
    store: str, counting: Counting, tmp_path: Path, simulator: str
) -> None:
    options = ["--drain-s", "1", "--counting", counting]
    with box_with(store, tmp_path, simulator, *options) as (box, redis):
        with streams(box, tokens=5000, interval_s=0.05) as futures:
            box.process.send_signal(signal.SIGTERM)
            answers = [future.result() for future in futures]
        assert box.process.wait(PATIENCE_S) == 0
        records = recorded(box, answers)
        assert_settled(redis, sum(r["prompt_tokens"] + r["completion_tokens"] for r in records))

    assert not any(answer.is_whole for answer in answers)
    for answer, record in zip(answers, records, strict=True):
        assert record["source"] == "usage", "the last event that passed carried it"
        assert record["details"].startswith("downstream_local_disconnect")
        assert 0 <= record["completion_tokens"] - answer.events <= 2, "an event may be on its way"


def test_a_second_ctrl_c_ends_the_drain_at_once_and_still_records(
    tmp_path: Path, simulator: str
) -> None:
    with box_with("memory", tmp_path, simulator, "--drain-s", "3600") as (box, _):
        with streams(box, tokens=8000, interval_s=0.05) as futures:
            box.process.send_signal(signal.SIGINT)
            log = tmp_path / "up.log"
            wait_until(lambda: "4 running requests get up to 3600 s" in log.read_text(), "the line")
            box.process.send_signal(signal.SIGINT)
            answers = [future.result() for future in futures]
        assert box.process.wait(PATIENCE_S) == 0

    for answer, record in zip(answers, recorded(box, answers), strict=True):
        assert 0 <= record["completion_tokens"] - answer.events <= 2


def test_while_it_drains_an_open_connection_gets_503_and_a_new_one_is_refused(
    tmp_path: Path, simulator: str
) -> None:
    with (
        box_with("memory", tmp_path, simulator, "--drain-s", str(PATIENCE_S)) as (box, _),
        httpx.Client(headers=box.headers(), timeout=PATIENCE_S) as client,
    ):
        url = f"{box.url}/v1/chat/completions"
        assert client.post(url, json=small_chat()).status_code == 200
        with streams(box, tokens=100, interval_s=0.05) as futures:
            box.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "stopping: " in (tmp_path / "up.log").read_text(), "the drain")
            refused = client.post(url, json=small_chat())
            wait_until(lambda: not connects(box), "new connections to be refused")
            answers = [future.result() for future in futures]
        assert box.process.wait(PATIENCE_S) == 0

    assert refused.status_code == 503
    assert refused.headers["connection"] == "close"
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"] == {
        "message": "The gateway is shutting down. Try again.",
        "type": "server_error",
        "param": None,
        "code": "service_unavailable",
        "request_id": refused.headers["x-request-id"],
    }
    assert all(answer.is_whole for answer in answers)


def connects(box: Box) -> bool:
    try:
        httpx.get(f"{box.url}/v1/models")
    except httpx.ConnectError:
        return False
    return True
