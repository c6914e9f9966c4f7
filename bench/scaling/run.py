"""One day with one way of scaling: pods that load, serve, drain and are reclaimed."""

import random
from collections import deque
from dataclasses import dataclass, field

from bench.scaling.autoscaler import (
    DEMAND,
    RUNNING,
    SYNC_S,
    TTFT,
    UNAVAILABLE,
    WAITING,
    Autoscaler,
    Rules,
)
from bench.scaling.spot import NO_SPOT, Spot
from bench.scaling.trace import HOUR_S, MEAN_OUTPUT_TOKENS, Day, within
from headgate.capacity.curve import ServiceCurve
from headgate.capacity.forecast import quantile
from headgate.capacity.queueing import Fleet, Pod

CURVE = ServiceCurve(
    gpu="simulated",
    gpus=1,
    first_token_s=0.05,
    prefill_tokens_per_s=16_000,
    token_interval_s=0.010,
    slowdown_s=0.0004,
    max_num_seqs=128,
    source="an 8B model on one GPU, assumed",
)
OBJECTIVE_S = 1.0
LOADING_S = 600.0
DRAIN_S = 345.0
"""`terminationGracePeriodSeconds` of the models' pods."""
_QUEUE = 256
"""`--max-num-queued-reqs`: beyond it vLLM answers 503."""
_WINDOW_S = 120.0
_FLAP_S = 1800.0


@dataclass(slots=True)
class Outcome:
    """The counts of one day."""

    requests: int = 0
    late: int = 0
    """Requests whose first token came after the objective."""
    refused: int = 0
    """Requests without a pod, or with a full queue."""
    cut: int = 0
    """Answers that ended with their pod."""
    pod_hours: float = 0.0
    spot_hours: float = 0.0
    started: int = 0
    wasted: int = 0
    """Pods that were taken away while they loaded."""
    flaps: int = 0
    """Pods that were taken away within half an hour of another's start, or the reverse."""

    @property
    def missed(self) -> float:
        """The share of requests that missed the objective."""
        return (self.late + self.refused + self.cut) / max(1, self.requests)


@dataclass(slots=True, eq=False)
class _Member:
    """A pod of the Deployment; `pod` is None while it loads."""

    ready_s: float
    is_spot: bool
    pod: Pod | None = None
    gone_s: float | None = None
    """When it is killed: it drains, or its node is reclaimed."""


@dataclass(slots=True)
class _Cluster:
    fleet: Fleet
    spot: Spot
    outcome: Outcome
    chance: random.Random
    members: list[_Member] = field(default_factory=list)
    leaving: list[_Member] = field(default_factory=list)
    last_start_s: float = -1e9
    last_removal_s: float = -1e9

    @property
    def unready(self) -> int:
        return sum(member.pod is None for member in self.members)

    def scale(self, now_s: float, pods: int) -> None:
        while len(self.members) < pods:
            self.outcome.flaps += now_s - self.last_removal_s < _FLAP_S
            self.start(now_s, now_s + LOADING_S)
            self.last_start_s = now_s
        while len(self.members) > pods:
            self.outcome.flaps += now_s - self.last_start_s < _FLAP_S
            self._remove(now_s)
            self.last_removal_s = now_s

    def start(self, now_s: float, ready_s: float) -> None:
        on_spot = sum(member.is_spot for member in self.members)
        is_spot = on_spot + 1 <= self.spot.share * (len(self.members) + 1)
        self.members.append(_Member(ready_s, is_spot))
        self.outcome.started += 1
        if ready_s <= now_s:
            self.members[-1].pod = self.fleet.add_pod()

    def _remove(self, now_s: float) -> None:
        """As Kubernetes does: a pod that is not ready goes first, then the youngest."""
        member = max(self.members, key=lambda each: (each.pod is None, each.ready_s))
        self.members.remove(member)
        if member.pod is None:
            self.outcome.wasted += 1
            return
        self.fleet.pods.remove(member.pod)
        member.gone_s = now_s + DRAIN_S
        self.leaving.append(member)

    def pass_time(self, now_s: float) -> None:
        """Pods get ready, are reclaimed, and end."""
        for member in self.members:
            if member.pod is None and member.ready_s <= now_s:
                member.pod = self.fleet.add_pod()
        self._reclaim(now_s)
        for member in list(self.leaving):
            assert member.pod is not None
            assert member.gone_s is not None
            if member.pod.load == 0 and member.pod not in self.fleet.pods:
                self.leaving.remove(member)
            elif now_s >= member.gone_s:
                self.outcome.cut += self.fleet.kill(member.pod)
                self.leaving.remove(member)
        every = [*self.members, *self.leaving]
        self.outcome.pod_hours += len(every) * SYNC_S / HOUR_S
        self.outcome.spot_hours += sum(member.is_spot for member in every) * SYNC_S / HOUR_S

    def _reclaim(self, now_s: float) -> None:
        """The replacement of a reclaimed pod loads from the notice on."""
        for member in [each for each in self.members if each.is_spot]:
            if not self.spot.takes(now_s, SYNC_S, self.chance):
                continue
            self.members.remove(member)
            self.start(now_s, now_s + LOADING_S)
            if member.pod is not None:
                member.gone_s = now_s + self.spot.notice_s
                self.leaving.append(member)
                if self.spot.drains:
                    self.fleet.pods.remove(member.pod)


def run_day(day: Day, rules: Rules | int, spot: Spot = NO_SPOT, seed: int = 1) -> Outcome:
    """Plays the day. `rules` may be a fixed number of pods."""
    chance = random.Random(seed)
    begin_s = day.hours[0] * HOUR_S
    fleet = Fleet(CURVE, 0, chance, warm_s=begin_s)
    outcome = Outcome()
    cluster = _Cluster(fleet, spot, outcome, chance)
    scaler = Autoscaler(rules, rules.least) if isinstance(rules, Rules) else None
    for _ in range(rules.least if isinstance(rules, Rules) else rules):
        cluster.start(begin_s, begin_s)
    signals = _Signals(fleet, day)
    next_s = begin_s
    for arrival in day.arrivals(seed):
        while arrival.at_s >= next_s:
            fleet.run_until(next_s)
            cluster.pass_time(next_s)
            if scaler is not None:
                cluster.scale(next_s, scaler.decide(next_s, signals.values(next_s, cluster)))
            next_s += SYNC_S
        outcome.requests += 1
        signals.reserve(arrival.prompt_tokens + MEAN_OUTPUT_TOKENS)
        queue = sum(len(pod.queue) for pod in fleet.pods)
        if not fleet.pods or queue >= _QUEUE * len(fleet.pods):
            outcome.refused += 1
        else:
            fleet.arrive(arrival)
    fleet.run_until(float("inf"))
    outcome.late = sum(ttft_s > OBJECTIVE_S for ttft_s in fleet.ttft_s)
    return outcome


class _Signals:
    """Prometheus' answers to the queries of the triggers."""

    def __init__(self, fleet: Fleet, day: Day) -> None:
        self._fleet = fleet
        self._day = day
        self._reserved = 0
        self._past: deque[tuple[float, int, int]] = deque()

    def reserve(self, tokens: int) -> None:
        self._reserved += tokens

    def values(self, now_s: float, cluster: _Cluster) -> dict[str, float | None]:
        fleet = self._fleet
        self._past.append((now_s, self._reserved, len(fleet.ttft_s)))
        while self._past[0][0] < now_s - _WINDOW_S:
            self._past.popleft()
        then_s, reserved, seen = self._past[0]
        p95_s = quantile(fleet.ttft_s[seen:], 0.95)
        of_vllm: dict[str, float | None] = {
            WAITING: sum(len(pod.queue) for pod in fleet.pods),
            RUNNING: sum(pod.running for pod in fleet.pods),
            TTFT: len(fleet.pods) * min(p95_s / OBJECTIVE_S, 1.5),
        }
        if within(self._day.blind, now_s / HOUR_S):
            of_vllm = dict.fromkeys(of_vllm)
        return of_vllm | {
            DEMAND: (self._reserved - reserved) / max(SYNC_S, now_s - then_s),
            UNAVAILABLE: len(cluster.members) if cluster.unready else 0,
        }
