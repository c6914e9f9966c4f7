"""vLLM's own token counters over a range of time, from Prometheus' HTTP API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from headgate.core.prometheus_api import PrometheusApi, prometheus_at

TIMEOUT_S = 30.0
_LOOK_BACK = timedelta(minutes=5)
"""A counter's value at the begin is its last sample before it, if Prometheus has one this young."""
_COUNTERS = {"prompt": "vllm:prompt_tokens_total", "completion": "vllm:generation_tokens_total"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTokens:
    """The tokens that the engine of a pod counted. A prompt counts once for each choice."""

    model: str
    prompt: int = 0
    completion: int = 0


def growth(samples: Sequence[tuple[float, float]], begin_s: float) -> float:
    """The growth of a counter since a moment, from its samples (Unix time, value). Pure.

    A value below the one before it is that of a restarted process, which began at 0. A counter
    without a sample before the moment is that of a new pod, and began at 0, too.
    """
    before = [value for at_s, value in samples if at_s <= begin_s]
    values = [before[-1] if before else 0.0, *(value for at_s, value in samples if at_s > begin_s)]
    return sum(new - old if new >= old else new for old, new in pairwise(values))


async def grown(
    prometheus: PrometheusApi, selector: str, begin: datetime, end: datetime
) -> list[tuple[Mapping[str, str], float]]:
    """The labels of each counter of a selector, and its growth in a span. Raises OperatorError."""
    seconds = round((end - begin + _LOOK_BACK).total_seconds())
    found = await prometheus.samples(f"{selector}[{seconds}s]", end.timestamp())
    return [(one.labels, growth(one.values, begin.timestamp())) for one in found]


async def read_engines(url: str, begin: datetime, end: datetime) -> Mapping[str, EngineTokens]:
    """The tokens by pod (Prometheus' label `instance`). Raises OperatorError."""
    found: dict[str, dict[str, Any]] = {}
    async with prometheus_at(url, TIMEOUT_S) as prometheus:
        for kind, name in _COUNTERS.items():
            for labels, tokens in await grown(prometheus, name, begin, end):
                pod = found.setdefault(labels.get("instance", ""), {"model": ""})
                pod["model"] = labels.get("model_name", "")
                pod[kind] = pod.get(kind, 0) + round(tokens)
    return {pod: EngineTokens(**values) for pod, values in found.items()}
