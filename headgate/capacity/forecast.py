"""The pods that a traffic needs, with the uncertainty of the forecast."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headgate.capacity.curve import ServiceCurve
from headgate.capacity.queueing import Waits, simulate
from headgate.capacity.traffic import Traffic, grown, shortened, without_cache

REPETITIONS = 10
NEEDED = 9
"""The repetitions that must meet the objective."""
SHOWN_AROUND = 2
"""The numbers of pods below and above the answer that are simulated too, to show the slope."""
MAX_PODS = 4096
MAX_REQUESTS = 4_000
"""The requests of one repetition. More of them would take minutes and change little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A service level objective: a quantile of the time to the first token, and its bound."""

    ttft_s: float
    quantile: float = 0.95
    per_token_s: float | None = None
    """The same quantile of the mean time from token to token; None: no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The forecast for a number of pods. Each pair is a range: 5 % and 95 % of the repetitions."""

    pods: int
    ttft_s: float
    """The objective's quantile: the median of the repetitions."""
    ttft_range_s: tuple[float, float]
    per_token_s: float
    mean_running: float
    met: int
    """The repetitions that met the objective."""

    @property
    def is_enough(self) -> bool:
        """Whether enough repetitions met the objective."""
        return self.met >= NEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The pods for one model. `points` holds every number of pods that was simulated."""

    model: str
    pods: int | None
    """None: no number of pods up to MAX_PODS is enough."""
    pods_without_cache: int | None
    points: tuple[Point, ...]
    requests_per_s: float

    @property
    def chosen(self) -> Point | None:
        """The forecast for `pods`."""
        return next((point for point in self.points if point.pods == self.pods), None)


def forecast(
    traffic: Traffic, curve: ServiceCurve, objective: Objective, growth: float, seed: int = 1
) -> Forecast:
    """The smallest number of pods that meets the objective for `growth` times the users.

    Of a window with very many requests, the busiest part is simulated.
    """
    traffic = shortened(traffic, max(1, round(MAX_REQUESTS / growth)))
    points: dict[int, Point] = {}

    def at(pods: int) -> Point:
        if pods not in points:
            points[pods] = predict(traffic, curve, objective, growth, pods, seed=seed)
        return points[pods]

    def cold(pods: int) -> Point:
        return predict(without_cache(traffic), curve, objective, growth, pods, seed=seed)

    pods = _fewest(at)
    if pods is not None:
        for near in range(max(1, pods - SHOWN_AROUND), pods + SHOWN_AROUND + 1):
            at(near)
    return Forecast(
        model=traffic.model,
        pods=pods,
        pods_without_cache=pods if _is_cold(traffic) else _fewest(cold),
        points=tuple(points[pods] for pods in sorted(points)),
        requests_per_s=growth * len(traffic.arrivals) / traffic.window_s,
    )


def predict(
    traffic: Traffic,
    curve: ServiceCurve,
    objective: Objective,
    growth: float,
    pods: int,
    *,
    seed: int,
) -> Point:
    """The forecast for one number of pods. It ends early once too many repetitions have failed."""
    runs: list[Waits] = []
    ttft_s: list[float] = []
    per_token_s: list[float] = []
    met = 0
    for repetition in range(REPETITIONS):
        chance = random.Random(seed * 1_000 + repetition)  # noqa: S311 (no secret)
        run = simulate(grown(traffic, growth, chance), curve, pods, chance)
        runs.append(run)
        ttft_s.append(quantile(run.ttft_s, objective.quantile))
        per_token_s.append(quantile(run.per_token_s, objective.quantile))
        met += _meets(objective, ttft_s[-1], per_token_s[-1])
        if len(runs) - met > REPETITIONS - NEEDED:
            break
    return Point(
        pods=pods,
        ttft_s=quantile(ttft_s, 0.5),
        ttft_range_s=(quantile(ttft_s, 0.05), quantile(ttft_s, 0.95)),
        per_token_s=quantile(per_token_s, 0.5),
        mean_running=sum(run.mean_running for run in runs) / len(runs),
        met=met,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1 if share else 0)]


def pods_for_zones(pods: int, zones: int) -> int:
    """The pods in `zones` zones of which one may be lost."""
    return pods if zones < 2 else math.ceil(pods / (zones - 1)) * zones


def _meets(objective: Objective, ttft_s: float, per_token_s: float) -> bool:
    fast = objective.per_token_s is None or per_token_s <= objective.per_token_s
    return ttft_s <= objective.ttft_s and fast


def _is_cold(traffic: Traffic) -> bool:
    return all(arrival.cached_tokens == 0 for arrival in traffic.arrivals)


def _fewest(at: Callable[[int], Point]) -> int | None:
    """The smallest number of pods that is enough: doubled until it is, then halved between."""
    enough = 1
    while not at(enough).is_enough:
        enough *= 2
        if enough > MAX_PODS:
            return None
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if at(middle).is_enough:
            enough = middle
        else:
            too_few = middle
    return enough
