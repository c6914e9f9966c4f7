"""The traffic of one model: its busiest window, and the same traffic when there are more users."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

SHIFT_S = 10.0
"""A copy of a user is shifted by at most this much in either direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request for a model. `at_s` counts from the window's start."""

    at_s: float
    user: str
    tenant: str
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, found in the prefix cache."""
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The arrivals of one window, in order of time."""

    model: str
    window_s: float
    arrivals: tuple[Arrival, ...]
    begin_s: float = 0.0
    """When the window began, on the clock of the requests that it was chosen from."""

    @property
    def tokens(self) -> int:
        """The tokens to compute: the prompts' uncached ones and the output."""
        return sum(_work_tokens(arrival) for arrival in self.arrivals)


def busiest_window(model: str, requests: Sequence[Arrival], window_s: float) -> Traffic:
    """The window with the most tokens to compute, of windows that begin with a request."""
    ordered = sorted(requests, key=lambda arrival: arrival.at_s)
    best_tokens, best_begin, best_end = 0, 0, 0
    tokens, end = 0, 0
    for begin, first in enumerate(ordered):
        while end < len(ordered) and ordered[end].at_s < first.at_s + window_s:
            tokens += _work_tokens(ordered[end])
            end += 1
        if tokens > best_tokens:
            best_tokens, best_begin, best_end = tokens, begin, end
        tokens -= _work_tokens(first)
    chosen = ordered[best_begin:best_end]
    begin_s = chosen[0].at_s if chosen else 0.0
    arrivals = tuple(replace(each, at_s=each.at_s - begin_s) for each in chosen)
    return Traffic(model=model, window_s=window_s, arrivals=arrivals, begin_s=begin_s)


def grown(traffic: Traffic, growth: float, chance: random.Random) -> Traffic:
    """The same traffic with `growth` times its users.

    The unit is a user: bursts and pauses of one user stay as they were. Each copy of a user is
    shifted a little, in the window as a ring. So users that came together still come together, and
    only chance decides whose request is first.
    """
    by_user: Mapping[str, list[Arrival]] = _by_user(traffic.arrivals)
    arrivals: list[Arrival] = []
    for name, own in by_user.items():
        copies = int(growth) + (chance.random() < growth - int(growth))
        for copy in range(copies):
            shift_s = chance.uniform(-SHIFT_S, SHIFT_S)
            arrivals += (
                replace(
                    each,
                    at_s=(each.at_s + shift_s) % traffic.window_s,
                    user=name if copy == 0 else f"{name}#{copy}",
                )
                for each in own
            )
    arrivals.sort(key=lambda arrival: arrival.at_s)
    return replace(traffic, arrivals=tuple(arrivals))


def shortened(traffic: Traffic, requests: int) -> Traffic:
    """The busiest part of the window, with about `requests` requests."""
    if len(traffic.arrivals) <= requests:
        return traffic
    part_s = traffic.window_s * requests / len(traffic.arrivals)
    return busiest_window(traffic.model, traffic.arrivals, part_s)


def without_cache(traffic: Traffic) -> Traffic:
    """The same traffic if no prompt were in the prefix cache."""
    arrivals = tuple(replace(each, cached_tokens=0) for each in traffic.arrivals)
    return replace(traffic, arrivals=arrivals)


def think_times_s(arrivals: Sequence[Arrival]) -> list[float]:
    """The pauses between requests of a user, from start to start."""
    pauses: list[float] = []
    for own in _by_user(arrivals).values():
        pauses += (later.at_s - earlier.at_s for earlier, later in pairwise(own))
    return pauses


def _by_user(arrivals: Sequence[Arrival]) -> Mapping[str, list[Arrival]]:
    by_user: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        by_user[f"{arrival.tenant}/{arrival.user}"].append(arrival)
    return by_user


def _work_tokens(arrival: Arrival) -> int:
    return arrival.prompt_tokens - arrival.cached_tokens + arrival.output_tokens
