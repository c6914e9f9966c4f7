"""The work that each stack does, in turns, and its cost."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import msgspec

from bench.peers.load import Load, Order
from bench.peers.processes import LeftOut, Stack

_WORDS = "the quick brown fox jumps over the lazy dog while counting tokens "
_IDLE_S, _FLUSH_S = 4.0, 0.5
"""The access log and the settlements of a turn come a little after its last answer."""
SHORT_TOKENS, LONG_TOKENS = 100, 500
STREAMS = 40


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of turn. `slow_requests`: as many for a stack that is far slower than the rest."""

    body: dict[str, Any]
    requests: int
    slow_requests: int
    in_flight: int = 1
    rate_per_s: float = 0.0

    @property
    def tokens(self) -> int:
        """How many tokens each answer has."""
        return int(self.body["max_tokens"])

    def order(self, stack: Stack, part: float = 1.0) -> Order:
        """This work for a stack, or only a part of it."""
        requests = self.slow_requests if "envoy" not in stack.pids else self.requests
        return Order(
            port=stack.port,
            headers=dict(stack.headers),
            body=self.body,
            requests=max(1, int(requests * part)),
            in_flight=self.in_flight,
            rate_per_s=self.rate_per_s,
        )


def _chat(size_bytes: int, tokens: int, **more: Any) -> dict[str, Any]:
    text = (_WORDS * (size_bytes // len(_WORDS) + 1))[:size_bytes]
    messages = [{"role": "user", "content": text}]
    return {"model": "tiny", "max_tokens": tokens, "messages": messages, **more}


WORKS: Mapping[str, Work] = {
    "short": Work(body=_chat(900, 10), requests=1_600, slow_requests=100, in_flight=16),
    "on time": Work(body=_chat(900, 10), requests=800, slow_requests=20, rate_per_s=200),
    "1 KB": Work(body=_chat(900, 10), requests=80, slow_requests=40, in_flight=2),
    "1 MB": Work(body=_chat(1_000_000, 10), requests=40, slow_requests=20, in_flight=2),
    "short stream": Work(
        body=_chat(900, SHORT_TOKENS, stream=True, interval_ms=10),
        requests=STREAMS,
        slow_requests=8,
        in_flight=STREAMS,
    ),
    "long stream": Work(
        body=_chat(900, LONG_TOKENS, stream=True, interval_ms=10),
        requests=STREAMS,
        slow_requests=8,
        in_flight=STREAMS,
    ),
}


@dataclass(kw_only=True)
class Turns:
    """All turns of one stack with one work."""

    requests: int = 0
    used_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    per_s: list[float] = field(default_factory=list)
    p50_s: list[float] = field(default_factory=list)
    p99_s: list[float] = field(default_factory=list)

    def us(self, part: str) -> float:
        """The processor time of a part for each request, in microseconds."""
        return self.used_s[part] / self.requests * 1e6

    @property
    def total_us(self) -> float:
        """The processor time of all parts for each request, in microseconds."""
        return sum(self.used_s.values()) / self.requests * 1e6

    @property
    def best_per_s(self) -> float:
        return max(self.per_s)

    @property
    def usual_p50_s(self) -> float:
        return median(self.p50_s)

    @property
    def usual_p99_s(self) -> float:
        return median(self.p99_s)


Results = Mapping[str, Mapping[str, Turns]]
"""By the stack's name and the work's."""


def able(stacks: Sequence[Stack], left_out: dict[str, str]) -> list[Stack]:
    """The stacks that answer every kind of work, which also warms them up."""
    answering = []
    for stack in stacks:
        try:
            for work in WORKS.values():
                _do(stack, work, 0.1)
        except LeftOut as reason:
            left_out[stack.name] = str(reason)
        else:
            answering.append(stack)
    return answering


def in_turns(stacks: Sequence[Stack], rounds: int, left_out: dict[str, str]) -> Results:
    """Every stack does every work, round after round, in an order that turns around.

    Other load on the machine then meets all of them alike. The cost of a stack
    without requests is subtracted. A stack whose answer is not a 200 is left out from then on.
    """
    idle = _idle(stacks)
    results = {stack.name: {name: Turns() for name in WORKS} for stack in stacks}
    for round_no in range(rounds):
        for name, work in WORKS.items():
            for stack in stacks if round_no % 2 == 0 else stacks[::-1]:
                if stack.name in results:
                    try:
                        _take(stack, work, results[stack.name][name], idle[stack.name])
                    except LeftOut as reason:
                        left_out[stack.name] = str(reason)
                        del results[stack.name]
        print(f"round {round_no + 1} of {rounds} is done", file=sys.stderr, flush=True)
    return results


def _idle(stacks: Sequence[Stack]) -> dict[str, dict[str, float]]:
    """The part of a processor that each part of each stack uses without requests."""
    time.sleep(_FLUSH_S)
    before = [stack.used_s() for stack in stacks]
    time.sleep(_IDLE_S)
    return {
        stack.name: {part: (used - start[part]) / _IDLE_S for part, used in stack.used_s().items()}
        for stack, start in zip(stacks, before, strict=True)
    }


def _take(stack: Stack, work: Work, turns: Turns, idle: Mapping[str, float]) -> None:
    before, start_s = stack.used_s(), time.monotonic()
    load = _do(stack, work)
    time.sleep(_FLUSH_S)
    after, taken_s = stack.used_s(), time.monotonic() - start_s
    requests = len(load.durations_s)
    turns.requests += requests
    for part, used_s in after.items():
        turns.used_s[part] += used_s - before[part] - idle[part] * taken_s
    turns.per_s.append(requests / load.taken_s)
    turns.p50_s.append(load.durations_s[requests // 2])
    turns.p99_s.append(load.durations_s[min(requests - 1, int(requests * 0.99))])


def _do(stack: Stack, work: Work, part: float = 1.0) -> Load:
    order = msgspec.json.encode(work.order(stack, part)).decode()
    command = [sys.executable, "-m", "bench.peers.load"]
    client = subprocess.run(command, input=order, capture_output=True, text=True, check=False)
    if client.returncode:
        raise LeftOut(f"the client broke: {client.stderr[-300:]}")
    load = msgspec.json.decode(client.stdout, type=Load)
    if set(load.statuses) != {"200"}:
        raise LeftOut(f"{stack.name} answered {load.statuses}: {load.sample[-200:]}")
    if work.body.get("stream") and load.events < sum(load.statuses.values()) * work.tokens:
        raise LeftOut(f"{stack.name} sent {load.events} events, too few for each token")
    return load
