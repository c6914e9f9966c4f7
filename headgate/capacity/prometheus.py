"""Samples of vLLM's histograms over a range of time, from Prometheus' HTTP API."""

from collections import defaultdict
from math import isnan

from headgate.capacity.fit import Sample
from headgate.core.prometheus_api import prometheus_at

TIMEOUT_S = 30.0
STEP_S = 60
_WINDOW = "2m"


def _mean(name: str) -> str:
    return (
        f"rate(vllm:{name}_sum{{LABELS}}[{_WINDOW}]) / rate(vllm:{name}_count{{LABELS}}[{_WINDOW}])"
    )


_REQUESTS = f"rate(vllm:time_to_first_token_seconds_count{{LABELS}}[{_WINDOW}])"
_UNCACHED = (
    f"(rate(vllm:prompt_tokens_total{{LABELS}}[{_WINDOW}])"
    f" - rate(vllm:prefix_cache_hits_total{{LABELS}}[{_WINDOW}]))"
)
QUERIES = {
    "running": f"avg_over_time(vllm:num_requests_running{{LABELS}}[{_WINDOW}])",
    "interval_s": _mean("inter_token_latency_seconds"),
    "prefill_s": _mean("request_prefill_time_seconds"),
    "uncached_tokens": f"{_UNCACHED} / {_REQUESTS}",
    "requests_per_s": _REQUESTS,
}
"""By field of `Sample`; LABELS takes the place of the label matchers."""


async def read_samples(url: str, model: str, begin_s: float, end_s: float) -> list[Sample]:
    """The samples of all pods of one base model between two Unix times.

    Steps in which a pod had no traffic are left out. Raises OperatorError when Prometheus cannot be
    asked.
    """
    values: dict[tuple[str, float], dict[str, float]] = defaultdict(dict)
    async with prometheus_at(url, TIMEOUT_S) as prometheus:
        for name, query in QUERIES.items():
            promql = query.replace("LABELS", f'model_name="{model}"')
            for series in await prometheus.range(promql, begin_s, end_s, STEP_S):
                labels = series.labels.items()
                pod = str(sorted((key, text) for key, text in labels if key != "__name__"))
                for at_s, number in series.values:
                    if not isnan(number):
                        values[pod, at_s][name] = number
    return [
        Sample(**fields)
        for fields in values.values()
        if len(fields) == len(QUERIES) and fields["running"] > 0
    ]
