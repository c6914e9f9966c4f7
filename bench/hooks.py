"""What does a hook's own work cost, without the gRPC server around it?

The hooks answer the messages that a real Envoy sent for a release, recorded in tests/compat. A call
is everything from the bytes of its message to the bytes of its answer.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from bench.main import run
from bench.measure import in_fresh_process
from bench.table import Cell, Table
from headgate._gen.auth_pb2 import CheckRequest
from headgate._gen.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.core.policy import Per
from headgate.policy.load import parse_policy
from headgate.program.app import Hooks, build_hooks
from headgate.program.parts import Parts, running_pins, running_store, running_verifier
from headgate.program.settings import ServiceSettings, StoreSettings
from ratelimit.descriptors.tree import DescriptorLevel, Node, Rate
from tests.compat.replaying import events
from tests.redis_server import PATIENT_S, running_redis

ROUNDS = 60
_AT_ONCE = 16
_CALLS = 64
_RECORDED = Path("tests/compat/0.1.0/messages.jsonl")
_ID = re.compile(rb"[0-9a-f]{32}")
_DOMAIN = "bench"
_HUGE = 10**12
_POLICY = f"""
models:
  tiny: {{upstream: "http://127.0.0.1:8000", context_tokens: 8192}}
tenants:
  acme:
    models: [tiny]
    keys:
      - id: alice-key
        user: alice
        sha256: 9164a1d942816be4dc274a345a2ca1c10d59dd3627ae6a2150e7e1c9ac2aef43
    limits:
      - {{count: tokens, limit: {_HUGE}, per: day, each: user}}
      - {{count: requests, limit: {_HUGE}, per: minute, each: [user, model]}}
"""

Answer = Callable[[bytes], Awaitable[bytes]]


@dataclass
class Hook:
    """A hook, the messages that it answers, and the processor time of a call in each round."""

    name: str
    answer: Answer
    messages: Sequence[bytes]
    calls_s: list[float] = field(default_factory=list)

    async def play(self, number: int, at_once: int) -> None:
        """Answers each message once, `at_once` at a time. Each round has its own reservations."""
        turns = range(-(-_CALLS // len(self.messages)))
        marks = [b"%08x%08x" % (number, turn) for turn in turns]
        fresh = [_renamed(one, mark) for mark in marks for one in self.messages]
        began_s = process_time()
        for first in range(0, len(fresh), at_once):
            if at_once == 1:
                await self.answer(fresh[first])
            else:
                await asyncio.gather(*map(self.answer, fresh[first : first + at_once]))
        self.calls_s.append((process_time() - began_s) / len(fresh))


def _renamed(message: bytes, mark: bytes) -> bytes:
    """The message of a reservation of its own: ids are 32 hex digits, and one of another length
    would break the message."""
    return _ID.sub(lambda name: mark + name[0][len(mark) :], message)


async def measure(rounds: int = ROUNDS) -> list[Table]:
    """The hooks with a memory store, a call at a time, then with Redis, some calls at once."""
    with running_redis() as server:
        rows = in_fresh_process(_played, server.url, rounds)
    return [Table(_TITLE, _COLUMNS, rows, _NOTE)]


def _played(redis_url: str, rounds: int) -> list[tuple[Cell, ...]]:
    return uvloop.run(_all_rows(redis_url, rounds))


async def _all_rows(redis_url: str, rounds: int) -> list[tuple[Cell, ...]]:
    in_memory = await _rows("memory", "memory", 1, rounds)
    return [*in_memory, *await _rows("Redis", redis_url, _AT_ONCE, rounds)]


async def _rows(store: str, url: str, at_once: int, rounds: int) -> list[tuple[Cell, ...]]:
    async with _running(url) as hooks:
        played = _hooks(hooks, with_store_only=at_once > 1)
        for number in range(rounds):
            for hook in played:
                await hook.play(number, at_once)
    return [
        (hook.name, store, at_once, min(hook.calls_s) * 1e6, median(hook.calls_s) * 1e6)
        for hook in played
    ]


@asynccontextmanager
async def _running(url: str) -> AsyncIterator[Hooks]:
    clock = SystemClock()
    metrics = Metrics(CollectorRegistry(), clock)
    policy = parse_policy(_POLICY.encode(), "bench")
    where = StoreSettings(url, deadline_s=PATIENT_S)
    async with (
        running_store(where, clock, metrics) as store,
        running_pins(where, clock) as pins,
        running_verifier(lambda: policy, clock, metrics) as verifier,
    ):
        parts = Parts(
            policy=lambda: policy,
            store=store,
            pins=pins,
            clock=clock,
            metrics=metrics,
            verifier=verifier,
            domains=lambda: {_DOMAIN: _domain()},
        )
        yield build_hooks(ServiceSettings(store=where), parts)


def _domain() -> DescriptorLevel:
    rate = Rate(id="user", limit=2**32 - 1, per=Per.MINUTE)
    return DescriptorLevel(keys={"user": Node(rate)})


def _hooks(hooks: Hooks, *, with_store_only: bool) -> list[Hook]:
    recorded = _messages()
    rate_limit = _rate_limit(hooks)
    asking = [
        Hook("reserve", rate_limit, recorded["reserve"]),
        Hook("settle", rate_limit, recorded["settle"]),
        Hook("drop-in", rate_limit, [_drop_in_call()]),
    ]
    if with_store_only:
        return asking
    return [
        Hook("check", _check(hooks), recorded["check"]),
        Hook("ext_proc", _process(hooks), recorded["process"]),
        *asking,
    ]


def _messages() -> Mapping[str, list[bytes]]:
    """The recorded messages of chat requests that were admitted, by what they ask."""
    found: dict[str, list[bytes]] = {"check": [], "process": [], "reserve": [], "settle": []}
    for event in events(_RECORDED):
        if event.method == "should_rate_limit":
            if b"acme" in event.request:
                found["reserve" if b"reserve" in event.request else "settle"].append(event.request)
        elif event.method == "check" and b"alice" in event.request:
            found["check"].append(event.request)
        elif event.method == "process" and _is_admitted_chat(event.request, event.response or b""):
            found["process"].append(event.request)
    return found


def _is_admitted_chat(request: bytes, response: bytes) -> bool:
    answer = ProcessingResponse.FromString(response)
    is_chat = b"/v1/chat/completions" in request and b"tiny" in request
    return is_chat and b"alice" in request and answer.HasField("request_headers")


def _drop_in_call() -> bytes:
    call = RateLimitRequest(domain=_DOMAIN)
    call.descriptors.add().entries.add(key="user", value="alice")
    return call.SerializeToString()


def _check(hooks: Hooks) -> Answer:
    async def answer(message: bytes) -> bytes:
        asked = CheckRequest.FromString(message)
        return (await hooks.authorization.check(asked, _Context())).SerializeToString()

    return answer


def _process(hooks: Hooks) -> Answer:
    async def answer(message: bytes) -> bytes:
        asked = ProcessingRequest.FromString(message)
        replies = hooks.processor.process(_only(asked), _Context())
        return b"".join([reply.SerializeToString() async for reply in replies])

    return answer


def _rate_limit(hooks: Hooks) -> Answer:
    async def answer(message: bytes) -> bytes:
        asked = RateLimitRequest.FromString(message)
        answered = await hooks.rate_limit.should_rate_limit(asked, _Context())
        assert answered.overall_code == RateLimitResponse.OK, answered
        return answered.SerializeToString()

    return answer


async def _only(message: ProcessingRequest) -> AsyncIterator[ProcessingRequest]:
    yield message


class _Context:
    """Stands in for gRPC's context: Envoy counts in the proxy, and no call fails."""

    def metadata(self, _name: str) -> None:
        return None

    def abort(self, status: Any, text: str) -> Any:
        raise AssertionError(f"{status}: {text}")


_TITLE = "One call of a hook"
_COLUMNS = ("hook", "store", "calls at once", "least us", "median us")
_NOTE = "Processor time of the services alone, without their gRPC server."

if __name__ == "__main__":
    run({"hooks": measure})
