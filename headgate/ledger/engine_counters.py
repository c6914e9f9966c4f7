"""vLLM's own token counters over a range of time, from Prometheus' HTTP API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx

from headgate.core.errors import OperatorError

_TIMEOUT_S = 30.0
_LOOK_BACK = timedelta(minutes=5)
"""A counter's value at the begin is its last sample before it, if Prometheus has one this young."""
_COUNTERS = {"prompt": "vllm:prompt_tokens_total", "completion": "vllm:generation_tokens_total"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTokens:
    """The tokens that the engine of a pod counted. A prompt counts once for each choice."""

    model: str
    prompt: int = 0
    completion: int = 0


def grown(samples: Sequence[tuple[float, float]], begin_s: float) -> int:
    """The growth of a counter since a moment, from its samples (Unix time, value). Pure.

    A value below the one before it is that of a restarted process, which began at 0. A counter
    without a sample before the moment is that of a new pod, and began at 0, too.
    """
    before = [value for at_s, value in samples if at_s <= begin_s]
    values = [before[-1] if before else 0.0, *(value for at_s, value in samples if at_s > begin_s)]
    return round(sum(new - old if new >= old else new for old, new in pairwise(values)))


def read_engines(url: str, begin: datetime, end: datetime) -> Mapping[str, EngineTokens]:
    """The tokens by pod (Prometheus' label `instance`). Raises OperatorError."""
    found: dict[str, dict[str, Any]] = {}
    seconds = round((end - begin + _LOOK_BACK).total_seconds())
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
        for kind, name in _COUNTERS.items():
            for series in _ask(client, url.rstrip("/"), f"{name}[{seconds}s]", end):
                labels = series["metric"]
                pod = found.setdefault(labels.get("instance", ""), {"model": ""})
                pod["model"] = labels.get("model_name", "")
                samples = [(float(at_s), float(value)) for at_s, value in series["values"]]
                pod[kind] = pod.get(kind, 0) + grown(samples, begin.timestamp())
    return {pod: EngineTokens(**values) for pod, values in found.items()}


def _ask(client: httpx.Client, url: str, query: str, at: datetime) -> list[dict[str, Any]]:
    try:
        params = {"query": query, "time": str(at.timestamp())}
        body = client.get(f"{url}/api/v1/query", params=params).json()
        result: list[dict[str, Any]] = body["data"]["result"]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OperatorError(f"--prometheus {url}: cannot be asked: {error}") from None
    except (ValueError, LookupError, TypeError):
        raise OperatorError(
            f"--prometheus {url}: answers without a result: name the address below which"
            " /api/v1/query answers"
        ) from None
    return result
