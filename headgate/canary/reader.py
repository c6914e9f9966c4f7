"""Reads the measurements from Prometheus' HTTP API."""

import asyncio

from headgate.canary.compare import Measurements, known
from headgate.canary.queries import (
    E2E,
    FINISH_REASONS,
    KV_CACHE,
    PER_TOKEN,
    TTFT,
    WAITING,
    ModelPart,
)
from headgate.core.prometheus_api import PrometheusApi, prometheus_at

TIMEOUT_S = 10.0


async def read(url: str, *parts: ModelPart) -> list[Measurements]:
    """The measurements of each part, by Prometheus at `url`.

    Raises OperatorError when Prometheus cannot be asked, or refuses a query.
    """
    async with prometheus_at(url, TIMEOUT_S) as prometheus:
        # All queries at one moment of Prometheus' own clock: else rates go above 1 under load.
        at_s = await prometheus.instant("time()")
        return [await _measured(prometheus, at_s, part) for part in parts]


async def _measured(prometheus: PrometheusApi, at_s: float | None, part: ModelPart) -> Measurements:
    queries = {
        "requests": part.requests(),
        "errors": part.errors(),
        "finished": part.finished(),
        "ttft_samples": part.samples(TTFT),
        "ttft_p50_s": part.quantile(TTFT, 0.5),
        "ttft_p95_s": part.quantile(TTFT, 0.95),
        "per_token_samples": part.samples(PER_TOKEN),
        "per_token_s": part.mean(PER_TOKEN),
        "e2e_samples": part.samples(E2E),
        "e2e_p95_s": part.quantile(E2E, 0.95),
        "waiting": part.gauge(WAITING),
        "kv_cache": part.gauge(KV_CACHE),
        "tokens_per_request": part.tokens_per_request(),
    }
    reasons = {reason: part.finished(reason) for reason in FINISH_REASONS}

    async def ask(query: str) -> float | None:
        number = await prometheus.instant(query, at_s)
        return None if number is None else known(number)

    values = await asyncio.gather(*map(ask, [*queries.values(), *reasons.values()]))
    return Measurements(
        **dict(zip(queries, values[: len(queries)], strict=True)),
        finish_reasons=dict(zip(reasons, values[len(queries) :], strict=True)),
    )
