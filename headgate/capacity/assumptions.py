"""Traffic from assumptions, for those who have no records yet."""

import math
import random
from dataclasses import dataclass

from headgate.capacity.traffic import Arrival, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """The users of an organisation at the busiest time. Medians are of lognormal values."""

    users: int
    active_share: float = 0.1
    """The share of the users who have a conversation open at the busiest time."""
    pause_median_s: float = 60.0
    """From a user's request to the next one."""
    prompt_median_tokens: int = 800
    output_median_tokens: int = 250
    cached_share: float = 0.4
    """Of a prompt, what the prefix cache has: earlier turns and system prompts."""


_PAUSE_SPREAD, _PROMPT_SPREAD, _OUTPUT_SPREAD = 0.8, 1.0, 0.8
"""Sigmas of the lognormals: one request in 40 has 5 to 8 times the median's prompt or output."""


def assumed_traffic(
    model: str, assumptions: Assumptions, window_s: float, chance: random.Random
) -> Traffic:
    """One window of the busiest time."""
    active = max(1, round(assumptions.users * assumptions.active_share))
    arrivals: list[Arrival] = []
    for user in range(active):
        # Long before the window, so that the users are in no step when it begins.
        at_s = -10 * assumptions.pause_median_s * (1 + chance.random())
        while at_s < window_s:
            if at_s >= 0:
                arrivals.append(_arrival(at_s, f"user-{user}", assumptions, chance))
            at_s += _lognormal(assumptions.pause_median_s, _PAUSE_SPREAD, chance)
    arrivals.sort(key=lambda arrival: arrival.at_s)
    return Traffic(model=model, window_s=window_s, arrivals=tuple(arrivals))


def _arrival(at_s: float, user: str, assumptions: Assumptions, chance: random.Random) -> Arrival:
    prompt = 1 + int(_lognormal(assumptions.prompt_median_tokens, _PROMPT_SPREAD, chance))
    return Arrival(
        at_s=at_s,
        user=user,
        tenant="",
        prompt_tokens=prompt,
        cached_tokens=int(prompt * assumptions.cached_share),
        output_tokens=1 + int(_lognormal(assumptions.output_median_tokens, _OUTPUT_SPREAD, chance)),
    )


def _lognormal(median: float, sigma: float, chance: random.Random) -> float:
    return chance.lognormvariate(math.log(median), sigma)
