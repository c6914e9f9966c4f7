"""Pods under load, by simulation: the waiting times of every request, not their means.

The law is the one of `ServiceCurve`. A pod's batch takes requests first come, first served. Prompts
are computed one after the other. Sequences in the batch advance together, so a pod counts its steps
as `progress`. A request ends when the progress has grown by its output.
"""

import heapq
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from headgate.capacity.curve import ServiceCurve
from headgate.capacity.traffic import Arrival, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The times of every request, in seconds, and how busy the pods were."""

    ttft_s: list[float]
    per_token_s: list[float]
    """Mean seconds from token to token of each request with more than one token."""
    mean_running: float
    """Sequences in a pod's batch, as the mean over the time and the pods."""


@dataclass(slots=True, eq=False)
class _Request:
    arrival: Arrival
    first_token_s: float = 0.0


@dataclass(slots=True, eq=False)
class Pod:
    """One pod: its batch and its queue."""

    curve: ServiceCurve
    running: int = 0
    queue: deque[_Request] = field(default_factory=deque)
    prefill_free_s: float = 0.0
    progress: float = 0.0
    at_s: float = 0.0
    decoding: list[tuple[float, int, _Request]] = field(default_factory=list)
    plan: int = 0
    """The number of the last planned end; an earlier one is out of date."""
    running_s: float = 0.0
    is_gone: bool = False

    @property
    def load(self) -> int:
        return self.running + len(self.queue)

    def advance(self, now_s: float) -> None:
        """Brings the pod to the present."""
        passed_s = now_s - self.at_s
        self.running_s += passed_s * self.running
        self.progress += passed_s / self.curve.interval_s(self.running)
        self.at_s = now_s


@dataclass(frozen=True, slots=True, eq=False)
class _Event:
    """A first token, or with a `plan` the next end in the pod; a later plan makes it void."""

    pod: Pod
    request: _Request
    plan: int | None


def simulate(traffic: Traffic, curve: ServiceCurve, pods: int, chance: random.Random) -> Waits:
    """The waits of this traffic on `pods` pods.

    A request goes to the less loaded of two random pods, as Envoy's LEAST_REQUEST chooses. The
    window is played twice and the second time counts, so that pods do not begin idle.
    """
    fleet = Fleet(curve, pods, chance, warm_s=traffic.window_s)
    fleet.play(traffic.arrivals)
    later = (replace(each, at_s=each.at_s + traffic.window_s) for each in traffic.arrivals)
    fleet.play(later)
    return fleet.waits()


class Fleet:
    """Pods that take requests. `pods` may change between two calls.

    A pod that is taken out of `pods` drains: it ends the requests that it has. Requests that arrive
    before `warm_s` are not in `ttft_s`, the times to the first token in order of the tokens.
    """

    def __init__(
        self, curve: ServiceCurve, pods: int, chance: random.Random, warm_s: float
    ) -> None:
        self._curve = curve
        self._warm_s = warm_s
        self.pods = [Pod(curve) for _ in range(pods)]
        self._chance = chance
        self._events: list[tuple[float, int, _Event]] = []
        self._number = 0
        self.ttft_s: list[float] = []
        self._per_token_s: list[float] = []

    def play(self, arrivals: Iterable[Arrival]) -> None:
        """Lets these arrive, in order of time."""
        for arrival in arrivals:
            self.arrive(arrival)

    def arrive(self, arrival: Arrival) -> None:
        """Lets one request arrive, once everything before it has happened. There must be a pod."""
        self.run_until(arrival.at_s)
        self._arrive(_Request(arrival))

    def add_pod(self) -> Pod:
        """A new pod takes requests from now on."""
        pod = Pod(self._curve)
        self.pods.append(pod)
        return pod

    def kill(self, pod: Pod) -> int:
        """The pod is gone. Returns how many requests it takes with it."""
        pod.is_gone = True
        if pod in self.pods:
            self.pods.remove(pod)
        return pod.load

    def waits(self) -> Waits:
        """The waits, once all requests have ended."""
        self.run_until(float("inf"))
        length_s = max((pod.at_s for pod in self.pods), default=0.0) or 1.0
        running_s = sum(pod.running_s for pod in self.pods)
        return Waits(
            ttft_s=self.ttft_s,
            per_token_s=self._per_token_s,
            mean_running=running_s / length_s / len(self.pods),
        )

    def _arrive(self, request: _Request) -> None:
        pod = self._choose()
        pod.advance(request.arrival.at_s)
        if pod.running < self._curve.max_num_seqs:
            self._enter(pod, request)
        else:
            pod.queue.append(request)

    def _choose(self) -> Pod:
        if len(self.pods) == 1:
            return self.pods[0]
        return min(self._chance.sample(self.pods, 2), key=lambda pod: pod.load)

    def _enter(self, pod: Pod, request: _Request) -> None:
        pod.running += 1
        uncached = request.arrival.prompt_tokens - request.arrival.cached_tokens
        begin_s = max(pod.at_s, pod.prefill_free_s)
        pod.prefill_free_s = begin_s + uncached / self._curve.prefill_tokens_per_s
        first_s = pod.prefill_free_s + self._curve.first_token_s
        self._push(first_s, _Event(pod, request, None))
        self._plan_end(pod)

    def run_until(self, limit_s: float) -> None:
        """Lets everything happen that happens until then."""
        while self._events and self._events[0][0] <= limit_s:
            now_s, _, event = heapq.heappop(self._events)
            pod = event.pod
            if pod.is_gone or event.plan not in (None, pod.plan):
                continue
            pod.advance(now_s)
            if event.plan is None:
                self._first_token(pod, event.request)
            else:
                self._end(pod, heapq.heappop(pod.decoding)[2])

    def _first_token(self, pod: Pod, request: _Request) -> None:
        request.first_token_s = pod.at_s
        if request.arrival.at_s >= self._warm_s:
            self.ttft_s.append(pod.at_s - request.arrival.at_s)
        remaining = request.arrival.output_tokens - 1
        if remaining <= 0:
            self._leave(pod)
            return
        heapq.heappush(pod.decoding, (pod.progress + remaining, self._next_number(), request))
        self._plan_end(pod)

    def _end(self, pod: Pod, request: _Request) -> None:
        if request.arrival.at_s >= self._warm_s:
            tokens = request.arrival.output_tokens - 1
            self._per_token_s.append((pod.at_s - request.first_token_s) / tokens)
        self._leave(pod)

    def _leave(self, pod: Pod) -> None:
        pod.running -= 1
        if pod.queue:
            self._enter(pod, pod.queue.popleft())
        else:
            self._plan_end(pod)

    def _plan_end(self, pod: Pod) -> None:
        """Plans the next end in the pod; it changes with every change of the batch."""
        pod.plan += 1
        if pod.decoding:
            progress, _, request = pod.decoding[0]
            wait_s = max(0.0, progress - pod.progress) * self._curve.interval_s(pod.running)
            self._push(pod.at_s + wait_s, _Event(pod, request, pod.plan))

    def _push(self, at_s: float, event: _Event) -> None:
        heapq.heappush(self._events, (at_s, self._next_number(), event))

    def _next_number(self) -> int:
        """Orders what has the same time."""
        self._number += 1
        return self._number
