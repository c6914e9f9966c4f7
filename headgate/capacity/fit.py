"""The service curve of a running model, from samples of vLLM's own histograms."""

from collections.abc import Sequence
from dataclasses import dataclass

from headgate.core.errors import OperatorError

MIN_SAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A pod during one step of time: means of what it served."""

    running: float
    """`vllm:num_requests_running`."""
    interval_s: float
    """`vllm:inter_token_latency_seconds`."""
    prefill_s: float
    """`vllm:request_prefill_time_seconds`: from the batch to the first token."""
    uncached_tokens: float
    """Prompt tokens of a request without those in the prefix cache."""
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class Line:
    """`base + slope * x`."""

    base: float
    slope: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """The two lines: seconds between tokens by batch, and seconds of prefill by prompt."""

    interval: Line
    prefill: Line


def fit(samples: Sequence[Sample]) -> Fitted:
    """Least squares over the samples. Neither line falls, and none begins below 0.

    Raises OperatorError if the samples are too few or all alike.
    """
    if len(samples) < MIN_SAMPLES:
        raise OperatorError(
            f"{len(samples)} samples are too few for a curve, at least {MIN_SAMPLES} are needed:"
            " take a longer --range"
        )
    interval = _line([(sample.running, sample.interval_s) for sample in samples])
    prefill = _line([(sample.uncached_tokens, _alone_s(sample)) for sample in samples])
    if prefill.slope <= 0:
        raise OperatorError(
            "all prompts had nearly the same length, so their cost does not show: take a --range"
            " with other traffic, or write the curve by hand"
        )
    return Fitted(interval, prefill)


def _alone_s(sample: Sample) -> float:
    """The prefill time without the wait for other prompts.

    Prompts share the engine. With a share u of its time taken, a prompt takes about 1 / (1 - u / 2)
    times as long. That is the mean wait of a queue with constant service, for small u.
    """
    busy = min(0.9, sample.requests_per_s * sample.prefill_s)
    return sample.prefill_s * (1 - busy / 2)


def _line(points: Sequence[tuple[float, float]]) -> Line:
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread < 1e-12 * max(1.0, mean_x) ** 2:
        return Line(mean_y, 0.0)
    slope = max(0.0, sum((x - mean_x) * (y - mean_y) for x, y in points) / spread)
    base = mean_y - slope * mean_x
    if base < 0:  # through the origin
        return Line(0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points))
    return Line(base, slope)
