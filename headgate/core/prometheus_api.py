"""Asks a Prometheus by its HTTP API: `/api/v1/query` and `/api/v1/query_range`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from headgate.core.errors import OperatorError

_MOST_CONNECTIONS = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series:
    """One series over a time: its labels, and its values by Unix time."""

    labels: Mapping[str, str]
    values: Sequence[tuple[float, float]]


class PrometheusApi:
    """The Prometheus at `url`, which `--prometheus` has named.

    Each method raises OperatorError when it cannot be asked, refuses a query, or is none.
    """

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url.rstrip("/")

    async def instant(self, promql: str, at_s: float | None = None) -> float | None:
        """The number that a query gives at a Unix time (None: now); None for no series."""
        data = {"query": promql} | ({} if at_s is None else {"time": str(at_s)})
        return await self._ask("/api/v1/query", data, _number)

    async def samples(self, promql: str, at_s: float) -> Sequence[Series]:
        """The samples of a range selector, such as `up[5m]`, that ends at a Unix time."""
        return await self._ask("/api/v1/query", {"query": promql, "time": str(at_s)}, _series)

    async def range(
        self, promql: str, begin_s: float, end_s: float, step_s: int
    ) -> Sequence[Series]:
        """The series of a query between two Unix times."""
        data = {"query": promql, "start": str(begin_s), "end": str(end_s), "step": str(step_s)}
        return await self._ask("/api/v1/query_range", data, _series)

    async def _ask(self, path: str, data: Mapping[str, str], read: Callable[[Any], T]) -> T:
        try:
            answer = await self._client.post(f"{self._url}{path}", data=data)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise OperatorError(f"--prometheus {self._url}: cannot be asked: {reason}") from error
        try:
            body = answer.json()
            if body["status"] != "success":
                refused = f"refuses {data['query']}: {body.get('error')}"
                raise OperatorError(f"--prometheus {self._url}: {refused}")
            return read(body["data"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OperatorError(
                f"--prometheus {self._url}: answers HTTP {answer.status_code} without a result:"
                f" name the address below which {path} answers"
            ) from error


@asynccontextmanager
async def prometheus_at(url: str, timeout_s: float) -> AsyncIterator[PrometheusApi]:
    """A client of the Prometheus at `url`. Proxies of the environment are used, as `curl` does."""
    limits = httpx.Limits(max_connections=_MOST_CONNECTIONS)
    async with httpx.AsyncClient(timeout=timeout_s, limits=limits) as client:
        yield PrometheusApi(client, url)


def _number(data: Any) -> float | None:
    result = data["result"]
    if data["resultType"] == "scalar":
        return float(result[1])
    return float(result[0]["value"][1]) if result else None


def _series(data: Any) -> Sequence[Series]:
    return [
        Series(dict(each["metric"]), [(float(at_s), float(text)) for at_s, text in each["values"]])
        for each in data["result"]
    ]
