"""Samples of vLLM's histograms over a range of time, from Prometheus' HTTP API."""

from collections import defaultdict
from typing import Any

import httpx

from headgate.capacity.fit import Sample
from headgate.core.errors import OperatorError

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


def read_samples(url: str, model: str, begin_s: float, end_s: float) -> list[Sample]:
    """The samples of all pods of one base model between two Unix times.

    Steps in which a pod had no traffic are left out. Raises OperatorError when Prometheus cannot be
    asked.
    """
    values: dict[tuple[str, float], dict[str, float]] = defaultdict(dict)
    with httpx.Client(timeout=TIMEOUT_S) as client:
        for name, query in QUERIES.items():
            promql = query.replace("LABELS", f'model_name="{model}"')
            for series in _ask(client, url.rstrip("/"), promql, begin_s, end_s):
                labels = series["metric"].items()
                pod = str(sorted((key, text) for key, text in labels if key != "__name__"))
                for at_s, text in series["values"]:
                    if (number := float(text)) == number:  # NaN is no number
                        values[pod, float(at_s)][name] = number
    return [
        Sample(**fields)
        for fields in values.values()
        if len(fields) == len(QUERIES) and fields["running"] > 0
    ]


def _ask(
    client: httpx.Client, url: str, promql: str, begin_s: float, end_s: float
) -> list[dict[str, Any]]:
    data = {"query": promql, "start": str(begin_s), "end": str(end_s), "step": str(STEP_S)}
    try:
        answer = client.post(f"{url}/api/v1/query_range", data=data)
        body = answer.json()
        if body["status"] != "success":
            raise OperatorError(f"--prometheus {url}: refuses {promql}: {body.get('error')}")
        result: list[dict[str, Any]] = body["data"]["result"]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise OperatorError(f"--prometheus {url}: cannot be asked: {reason}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise OperatorError(
            f"--prometheus {url}: answers without a result: name the address below which"
            " /api/v1/query_range answers"
        ) from error
    return result
