"""Reads the measurements from Prometheus' HTTP API."""

import asyncio
from typing import Any

import httpx

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
from headgate.core.errors import OperatorError

TIMEOUT_S = 10.0


async def read(url: str, *parts: ModelPart) -> list[Measurements]:
    """The measurements of each part, by Prometheus at `url`.

    Proxies of the environment are used, as `curl` does. Raises OperatorError when Prometheus
    cannot be asked, or refuses a query.
    """
    limits = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client:
        asker = _Asker(client, url.rstrip("/"))
        # All queries at one moment of Prometheus' own clock: else rates go above 1 under load.
        asker.at_s = await asker.ask("time()")
        return [await _measured(asker, part) for part in parts]


class _Asker:
    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self.at_s: float | None = None

    async def ask(self, query: str) -> float | None:
        """The number that an instant query gives; None for no series and for NaN."""
        data = {"query": query} if self.at_s is None else {"query": query, "time": str(self.at_s)}
        try:
            answer = await self._client.post(f"{self._url}/api/v1/query", data=data)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise OperatorError(f"--prometheus {self._url}: cannot be asked: {reason}") from error
        try:
            body: Any = answer.json()
            if body["status"] != "success":
                raise OperatorError(
                    f"--prometheus {self._url}: refuses {query}: {body.get('error')}"
                )
            result = body["data"]["result"]
            if body["data"]["resultType"] == "scalar":
                return known(float(result[1]))
            return known(float(result[0]["value"][1])) if result else None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OperatorError(
                f"--prometheus {self._url}: answers HTTP {answer.status_code} without a result:"
                " name the address below which /api/v1/query answers"
            ) from error


async def _measured(asker: _Asker, part: ModelPart) -> Measurements:
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
    values = await asyncio.gather(*map(asker.ask, [*queries.values(), *reasons.values()]))
    return Measurements(
        **dict(zip(queries, values[: len(queries)], strict=True)),
        finish_reasons=dict(zip(reasons, values[len(queries) :], strict=True)),
    )
