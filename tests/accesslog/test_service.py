"""The access log service behind a real grpc.aio server: it records, counts, teaches, settles."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from prometheus_client import CollectorRegistry

from accesslog.console import ConsoleSink
from accesslog.meter import meter
from accesslog.service import ENTRIES_AT_ONCE, SETTLES_AT_ONCE, AccessLogService
from accesslog.types import UsageRecord
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy, Model, Tenant
from headgate.core.settlement import Estimate, Usage
from tests.accesslog.entries import ADMISSION, CALLER, USAGE, entry, message, prices_of
from tests.fakes import FakeClock
from tests.hook_channel import hook_channel

PATH = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
CUT = {"status": "200", "events": "5"}


@dataclass
class FakeLimiter:
    """Settles each reservation once; for those in `away` the store does not answer."""

    away: set[str] = field(default_factory=set)
    settled: dict[str, tuple[str, Usage, Estimate]] = field(default_factory=dict)
    held_by: set[str] = field(default_factory=set)
    known: dict[tuple[str, str], str] = field(default_factory=dict)
    inside: int = 0
    most_inside: int = 0

    async def settle(
        self, reservation: str, tenant: str, usage: Usage, estimate: Estimate, held_by: str
    ) -> str:
        self.held_by.add(held_by)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        if reservation in self.away:
            raise ConnectionError("the store\nis away")
        if reservation in self.settled:
            return "duplicate"
        self.settled[reservation] = (tenant, usage, estimate)
        return "usage"


@dataclass
class FakeSink:
    """A sink that keeps the records, or whose disk is full."""

    full: bool = False
    records: list[UsageRecord] = field(default_factory=list)

    async def write(self, records: Sequence[UsageRecord]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.records += records


POLICY = CompiledPolicy(
    models={
        "llama-8b-sql": Model(
            name="llama-8b-sql",
            base="llama-8b",
            served_as="sql-v3",
            upstream="http://127.0.0.1:1",
            context_tokens=8192,
            forces_usage=True,
        )
    },
    tenants={
        "acme": Tenant(
            name="acme", calendar=ZoneInfo("UTC"), models=frozenset({"llama-8b-sql"}), limits=()
        )
    },
    keys={},
)


class World:
    """The service with fakes around it, and a client on a socket of its own."""

    def __init__(
        self, console: ConsoleSink | None = None, settles_at_once: int = SETTLES_AT_ONCE
    ) -> None:
        self.limiter = FakeLimiter()
        self.sink = FakeSink()
        self.failures: list[str] = []
        self.unanswered: list[str] = []
        self.taught: list[tuple[tuple[str, str, str], int, int, int]] = []
        self.policy = CollectorRegistry()
        self.clock = FakeClock()
        self.service = AccessLogService(
            settle=self.limiter.settle,
            known_outcome=lambda *reservation: self.limiter.known.get(reservation),
            unanswered=self.unanswered.append,
            learn=lambda *lesson: self.taught.append(lesson),
            price_of=prices_of,
            sinks=[self.sink],
            policy=lambda: POLICY,
            metrics=Metrics(self.policy, FakeClock()),
            clock=self.clock,
            within_limit=self.within_limit,
            console=console,
            settles_at_once=settles_at_once,
        )
        self.channel: grpc.aio.Channel

    def within_limit(self, address: str) -> bool:
        self.failures.append(address)
        return len(self.failures) <= 2

    async def send(self, *messages: bytes) -> None:
        """One stream, as Envoy keeps it, ended at once."""
        stream: Any = self.channel.stream_unary(PATH)
        await stream(iter(messages))

    def metric(self, name: str, **labels: str) -> float:
        return self.policy.get_sample_value(f"headgate_{name}", labels) or 0.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World()
    async with hook_channel(world.service.methods()) as world.channel:
        yield world


def numbered(number: int, **changes: Any) -> Any:
    admission = {**ADMISSION, "reservation": f"r-{number}"}
    return entry(request_id=f"q-{number}", **{"admission": admission, **changes})


async def test_many_entries_in_many_messages_each_give_one_record_and_one_settlement(
    world: World,
) -> None:
    batches = [[numbered(100 * batch + n) for n in range(100)] for batch in range(5)]
    await world.send(*(message(*batch) for batch in batches))
    assert [record.request_id for record in world.sink.records] == [f"q-{n}" for n in range(500)]
    assert len(world.limiter.settled) == 500
    assert world.limiter.most_inside <= 32
    assert world.metric("records_total", outcome="written") == 500
    assert world.metric("settlements_total", via="accesslog", outcome="usage") == 500
    assert world.metric("hook_seconds_count", hook="accesslog") == 5


async def test_two_envoys_stream_side_by_side(world: World) -> None:
    await asyncio.gather(
        world.send(*(message(numbered(n)) for n in range(50))),
        world.send(*(message(numbered(n)) for n in range(50, 100))),
    )
    assert len(world.limiter.settled) == 100


async def test_a_settlement_gets_the_estimate_and_the_usage(world: World) -> None:
    await world.send(message(entry(usage=CUT)))
    assert world.limiter.settled == {
        "r-1": ("acme", Usage(status=200, events=5), Estimate(300, 44))
    }
    assert world.limiter.held_by == {""}


async def test_a_settlement_says_which_replica_holds_the_request(world: World) -> None:
    await world.send(message(entry(limits={"held_by": "abc"})))
    assert world.limiter.held_by == {"abc"}


async def test_a_second_settlement_changes_nothing_and_is_counted(world: World) -> None:
    await world.send(message(entry()), message(entry()))
    assert world.metric("settlements_total", via="accesslog", outcome="duplicate") == 1


async def test_a_request_that_is_settled_already_is_counted_without_asking_the_store(
    world: World,
) -> None:
    world.limiter.known = {("r-1", "acme"): "duplicate"}
    await world.send(message(numbered(1), numbered(2)))
    assert world.limiter.settled.keys() == {"r-2"}
    assert world.metric("settlements_total", via="accesslog", outcome="duplicate") == 1
    assert world.metric("settlements_total", via="accesslog", outcome="usage") == 1


async def test_a_request_refused_before_admission_is_kept_and_not_settled(world: World) -> None:
    await world.send(message(entry(status=401, admission={}, usage={}, caller={}, request={})))
    assert [record.status for record in world.sink.records] == [401]
    assert world.limiter.settled == {}
    labels = {"tenant": "-", "model": "-", "api": "chat", "status": "401"}
    assert world.metric("requests_total", **labels) == 1


async def test_records_of_requests_that_ext_authz_has_not_seen_are_bounded(world: World) -> None:
    """HTTP/1.0, a bad path, headers that never end: none has a key, and each would be a record."""
    early = {"admission": {}, "usage": {}, "caller": {}, "request": {}}
    entries = [entry(status=426, details="low_version", **early) for _ in range(5)]
    denied = [entry(status=401, details="ext_authz_denied", **early) for _ in range(5)]
    await world.send(message(*entries, *denied, *(numbered(n) for n in range(5))))
    details = [record.details for record in world.sink.records]
    assert details.count("low_version") == 2
    assert details.count("ext_authz_denied") == 5
    assert len(details) == 12
    assert set(world.failures) == {world.sink.records[0].ip}
    assert world.metric("records_total", outcome="left_out") == 3


async def test_requests_without_an_answer_to_their_check_are_told_by_their_ids(
    world: World,
) -> None:
    """The client left, or the services were too slow. The others have an answer, or no check."""
    ended = {"admission": {}, "usage": {}, "caller": {}, "upstream_host": ""}
    left = {**ended, "status": None, "details": "downstream_remote_disconnect"}
    await world.send(
        message(
            entry(request_id="left", **left),
            entry(request_id="slow", status=503, details="ext_authz_error", **ended),
            entry(request_id="unknown key", status=401, details="ext_authz_denied", **ended),
            entry(request_id="body not read", **{**left, "request": {}}),
            entry(request_id="runs", **{**left, "duration_s": None}),
            entry(request_id="admitted, then left", **{**left, "caller": CALLER}),
            entry(request_id="answered"),
        )
    )
    assert world.unanswered == ["left", "slow"]


async def test_an_entry_about_a_running_request_is_neither_kept_nor_settled(world: World) -> None:
    await world.send(message(entry(duration_s=None), entry()))
    assert len(world.sink.records) == 1
    assert world.metric("records_total", outcome="written") == 1


async def test_a_store_that_is_away_loses_no_record_and_no_other_settlement(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.limiter.away = {"r-1", "r-3"}
    with caplog.at_level(logging.ERROR):
        await world.send(message(*(numbered(n) for n in range(5))))
    assert len(world.sink.records) == 5
    assert world.limiter.settled.keys() == {"r-0", "r-2", "r-4"}
    assert world.metric("store_errors_total", operation="settle") == 2
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert line == ("cannot settle 2 of 5 requests: ConnectionError('the store\\nis away')")


async def test_an_outage_of_the_store_is_logged_once_and_then_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.limiter.away = {"r-1", "r-2", "r-4"}
    with caplog.at_level(logging.ERROR):
        await world.send(*(message(numbered(n)) for n in range(1, 5)))
        assert len(caplog.messages) == 1
        world.clock.advance(10)
        await world.send(message(numbered(1)))
    assert caplog.messages[1].endswith("(and 2 more since the last such line)")
    assert world.metric("store_errors_total", operation="settle") == 4


async def test_a_full_disk_ends_neither_the_stream_nor_the_settlements(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.sink.full = True
    with caplog.at_level(logging.ERROR):
        await world.send(message(numbered(1), numbered(2)), message(numbered(3)))
    assert world.limiter.settled.keys() == {"r-1", "r-2", "r-3"}
    assert world.metric("records_total", outcome="failed") == 3
    assert world.metric("records_total", outcome="written") == 0
    (line,) = caplog.messages
    assert line == "cannot write 2 usage records: [Errno 28] No space left on device"


async def test_a_503_of_our_own_leaves_a_line_with_the_requests_id(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    away = {"status": 503, "details": "rate_limiter_error", "upstream_rx_s": None}
    with caplog.at_level(logging.WARNING):
        await world.send(message(*(numbered(n, **away) for n in range(50))))
        await world.send(message(numbered(51, status=503, usage={"status": "503"})))
    (line,) = caplog.records
    assert line.getMessage() == "a client got 503: rate_limiter_error"
    facts = vars(line)
    assert (facts["request_id"], facts["tenant"], facts["status"]) == ("q-0", "acme", 503)
    assert facts["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_a_refusal_by_a_limit_leaves_a_line_with_its_request_trace_and_limit(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    refused = {"status": 429, "details": "request_rate_limited", "upstream_rx_s": None}
    with caplog.at_level(logging.INFO):
        await world.send(message(numbered(1, **refused, limits={"refused_by": "acme/day"})))
    (line,) = caplog.records
    assert line.getMessage() == "acme/alice is over its limit: acme/day"
    facts = vars(line)
    assert (facts["request_id"], facts["tenant"], facts["status"]) == ("q-1", "acme", 429)
    assert (facts["trace_id"], facts["limit"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "acme/day")


async def test_a_message_that_cannot_be_read_is_counted_and_the_next_is_handled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        await world.send(b"\x12\xff", message(entry()))
    assert len(world.sink.records) == 1
    assert world.metric("records_total", outcome="failed") == 1
    assert "dropped an access log message of 2 bytes" in caplog.text


async def test_requests_tokens_and_first_output_are_counted(world: World) -> None:
    await world.send(message(entry(), numbered(2, usage={**USAGE, "reasoning": "3"})))
    labels = {"tenant": "acme", "model": "llama-8b-sql", "api": "chat", "status": "200"}
    assert world.metric("requests_total", **labels) == 2
    tokens = {
        kind: world.metric("tokens_total", tenant="acme", model="llama-8b-sql", kind=kind)
        for kind in ("prompt", "cached", "completion", "reasoning")
    }
    assert tokens == {"prompt": 24, "cached": 16, "completion": 128, "reasoning": 3}
    assert world.metric("ttft_seconds_count", model="llama-8b-sql", version="-") == 2
    assert world.metric("estimate_ratio_sum", model="llama-8b-sql") == 2 * 300 / 76


async def test_no_text_of_a_client_becomes_a_label(world: World) -> None:
    await world.send(
        message(
            entry(status=404, admission={}, usage={}, request={"model": "EVIL"}, path="/EVIL"),
            entry(status=None, user_agent="EVIL", request_id="EVIL", path="/EVIL?EVIL"),
        )
    )
    labels = {
        value
        for metric in world.policy.collect()
        for sample in metric.samples
        for value in sample.labels.values()
    }
    assert not any("EVIL" in value for value in labels)
    assert {"acme", "-", "404"} <= labels


SUBJECT = ("acme", "alice", "llama-8b-sql")
LESSONS: dict[str, tuple[dict[str, Any], list[tuple[tuple[str, str, str], int, int, int]]]] = {
    "a whole answer teaches": ({}, [(SUBJECT, 96, 12, 64)]),
    "its text alone counts": (
        {"admission": {**ADMISSION, "text_bytes": "40"}},
        [(SUBJECT, 40, 12, 64)],
    ),
    "images say nothing about text": (
        {"admission": {**ADMISSION, "text_bytes": "0"}},
        [(SUBJECT, 0, 12, 64)],
    ),
    "an aborted stream does not": (
        {"usage": {key: value for key, value in USAGE.items() if key != "complete"}},
        [],
    ),
    "an answer without usage does not": ({"usage": {"status": "200", "complete": "1"}}, []),
    "an error does not": ({"status": 500, "usage": {**USAGE, "status": "500"}}, []),
    "another status does not": ({"status": 206}, []),
    "a refused request does not": ({"admission": {}, "usage": {}}, []),
}


@pytest.mark.parametrize(("changes", "taught"), LESSONS.values(), ids=LESSONS.keys())
async def test_only_whole_answers_teach_the_estimator(
    world: World, changes: dict[str, Any], taught: list[tuple[tuple[str, str, str], int, int, int]]
) -> None:
    await world.send(message(entry(**changes)))
    assert world.taught == taught


async def test_garbage_in_one_entry_leaves_the_others_alone(world: World) -> None:
    garbage = entry(
        start_ns=-(10**18) * 5,
        admission={
            "reservation": "r-9",
            "tenant": "acme",
            "estimate": "-1",
            "estimate_prompt": "x",
        },
        usage={"status": "two hundred", "prompt": "9" * 40, "first_event_ms": "-1"},
    )
    await world.send(message(garbage, numbered(2)))
    assert len(world.sink.records) == 2
    assert world.limiter.settled["r-9"] == ("acme", Usage(), Estimate(0, 0))


async def test_the_loop_gets_a_turn_after_each_few_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flush of Envoy's brings any number of entries, and every hook waits meanwhile.

    It counts the entries that are read, settled in a store of this process, and shown.
    """
    work_in_a_turn: list[Counter[str]] = [Counter()]

    def counted(*arguments: Any) -> Any:
        work_in_a_turn[-1]["read"] += 1
        return meter(*arguments)

    async def settle(*_: Any) -> str:
        work_in_a_turn[-1]["settled"] += 1
        return "usage"

    async def count_turns() -> None:
        while True:
            await asyncio.sleep(0)
            work_in_a_turn.append(Counter())

    def show(lines: str) -> None:
        work_in_a_turn[-1]["shown"] += len(lines.splitlines())

    monkeypatch.setattr("accesslog.service.meter", counted)
    monkeypatch.setattr(FakeLimiter, "settle", settle)
    desk = World(console=ConsoleSink(show, lambda _: ()), settles_at_once=1)
    turns = asyncio.create_task(count_turns())
    await asyncio.sleep(0)
    await desk.service.handle(message(*(entry(request_id=f"q-{number}") for number in range(100))))
    turns.cancel()

    assert len(desk.sink.records) == 100
    assert sum(work_in_a_turn, Counter()) == {"read": 100, "settled": 100, "shown": 100}
    assert max(turn.total() for turn in work_in_a_turn) <= ENTRIES_AT_ONCE
