"""The traffic of a day: few requests at night, two humps, noise, and a job that begins at once."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from headgate.capacity.traffic import Arrival

HOUR_S = 3600.0
_BY_HOUR = (
    *(0.15, 0.12, 0.10, 0.10, 0.10, 0.14, 0.25, 0.45, 0.80, 0.97, 1.00, 0.95),
    *(0.75, 0.85, 0.98, 1.00, 0.95, 0.80, 0.55, 0.40, 0.35, 0.30, 0.25, 0.20),
)
"""The rate at the start of each hour, as a share of the peak; a line between two hours."""
_OUTPUT_MEDIAN, _OUTPUT_SPREAD = 250, 0.8
_PROMPT_MEDIAN, _PROMPT_SPREAD = 800, 1.0
_CACHED = 0.4
MEAN_OUTPUT_TOKENS = round(_OUTPUT_MEDIAN * math.exp(_OUTPUT_SPREAD**2 / 2))
"""What the estimator has learned of these answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day of traffic. Spans are hours of the day."""

    name: str
    hours: tuple[float, float] = (0.0, 24.0)
    peak_per_s: float = 20.0
    job: tuple[float, float] | None = (14.5, 14.83)
    """A job adds half of the peak."""
    long_prompts: tuple[float, float] | None = None
    """Prompts are three times as long."""
    blind: tuple[float, float] | None = None
    """Prometheus has no answer to queries of vLLM's metrics."""

    def arrivals(self, seed: int) -> Iterator[Arrival]:
        """The requests in order of time, in seconds of the day."""
        chance = random.Random(seed)
        noise, at_s = 0.0, self.hours[0] * HOUR_S
        minute_end_s = at_s
        while at_s < self.hours[1] * HOUR_S:
            if at_s >= minute_end_s:
                minute_end_s += 60
                noise = 0.9 * noise + chance.gauss(0, 0.04)
            hour = at_s / HOUR_S
            per_s = self.peak_per_s * (
                _share(hour) * math.exp(noise) + 0.5 * within(self.job, hour)
            )
            at_s += chance.expovariate(per_s)
            yield _arrival(at_s, 3 if within(self.long_prompts, hour) else 1, chance)


def within(span: tuple[float, float] | None, hour: float) -> bool:
    """Whether the hour is in the span."""
    return span is not None and span[0] <= hour < span[1]


def _share(hour: float) -> float:
    begin = int(hour) % 24
    here, there = _BY_HOUR[begin], _BY_HOUR[(begin + 1) % 24]
    return here + (there - here) * (hour - int(hour))


def _arrival(at_s: float, longer: int, chance: random.Random) -> Arrival:
    prompt = longer * int(chance.lognormvariate(math.log(_PROMPT_MEDIAN), _PROMPT_SPREAD)) + 1
    return Arrival(
        at_s=at_s,
        user="",
        tenant="",
        prompt_tokens=prompt,
        cached_tokens=int(prompt * _CACHED),
        output_tokens=int(chance.lognormvariate(math.log(_OUTPUT_MEDIAN), _OUTPUT_SPREAD)) + 1,
    )
