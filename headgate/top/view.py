"""From two pages of metrics and the seconds between them to the numbers on the screen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from headgate.core.samples import Samples

_TTFT = "headgate_ttft_seconds_bucket"
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model in one version: requests and errors of the server in a second, and TTFT.

    The quantiles are in seconds, and None without a stream in the time between.
    """

    model: str
    version: str
    requests: float
    errors: float
    ttft_p50_s: float | None
    ttft_p95_s: float | None


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant: what it had in a second."""

    tenant: str
    requests: float
    refusals: float
    tokens: float


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A limit of a tenant: the used part, and its refusals in a second."""

    tenant: str
    limit: str
    used: float
    refusals: float


@dataclass(frozen=True, slots=True)
class PodRow:
    """A vLLM: requests that run and wait, and the used part of its KV cache. None: no answer."""

    name: str
    running: float | None
    waiting: float | None
    kv: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the screen shows."""

    store_available: bool
    models: tuple[ModelRow, ...]
    tenants: tuple[TenantRow, ...]
    limits: tuple[LimitRow, ...]
    pods: tuple[PodRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Between:
    """Two pages of metrics, and the seconds between them."""

    before: Samples
    after: Samples
    seconds: float

    def rate(self, name: str, **labels: str) -> float:
        """How much a counter rose in a second; one that began again counts from 0."""
        now = self.after.value(name, **labels) or 0.0
        rise = now - (self.before.value(name, **labels) or 0.0)
        return (rise if rise >= 0 else now) / self.seconds

    def quantile_s(self, part: float, **labels: str) -> float | None:
        """A quantile of TTFT over the time between, within the bucket as if spread evenly."""
        counts = [
            (float(bound), self.rate(_TTFT, le=bound, **labels))
            for bound in sorted({own["le"] for own, _ in self.after.of(_TTFT)}, key=float)
        ]
        if not counts or not counts[-1][1]:
            return None
        wanted = part * counts[-1][1]
        for (low_s, below), (high_s, up_to) in pairwise([(0.0, 0.0), *counts]):
            if up_to >= wanted:
                share = (wanted - below) / (up_to - below) if up_to > below else 1.0
                return low_s if high_s == float("inf") else low_s + share * (high_s - low_s)
        return None

    def labels(self, name: str, *keys: str) -> list[tuple[str, ...]]:
        """The values of these labels that a counter has, sorted."""
        return sorted({tuple(own[key] for key in keys) for own, _ in self.after.of(name)})


def view(between: Between, pods: Iterable[PodRow] = ()) -> View:
    """The numbers for the screen."""
    available = between.after.value("headgate_store_available")
    return View(
        store_available=available != 0,
        models=tuple(_models(between)),
        tenants=tuple(_tenants(between)),
        limits=tuple(sorted(_limits(between), key=lambda row: -row.used)),
        pods=tuple(pods),
    )


def pod(name: str, metrics: Samples | None) -> PodRow:
    """A vLLM by its own metrics; None if it does not answer."""
    if metrics is None:
        return PodRow(name, None, None, None)
    return PodRow(
        name,
        metrics.value("vllm:num_requests_running"),
        metrics.value("vllm:num_requests_waiting"),
        metrics.value("vllm:kv_cache_usage_perc"),
    )


def _models(between: Between) -> Iterable[ModelRow]:
    name = "headgate_answers_total"
    for model, version in between.labels(name, "model", "version"):
        labels = {"model": model, "version": version}
        yield ModelRow(
            model=model,
            version=version,
            requests=between.rate(name, **labels),
            errors=between.rate(name, **labels, **{"class": "5xx"}),
            ttft_p50_s=between.quantile_s(0.5, **labels),
            ttft_p95_s=between.quantile_s(0.95, **labels),
        )


def _tenants(between: Between) -> Iterable[TenantRow]:
    for (tenant,) in between.labels("headgate_requests_total", "tenant"):
        tokens = sum(
            between.rate("headgate_tokens_total", tenant=tenant, kind=kind)
            for kind in ("prompt", "completion")
        )
        refusals = between.rate("headgate_refusals_total", tenant=tenant)
        requests = between.rate("headgate_requests_total", tenant=tenant)
        yield TenantRow(tenant, requests, refusals, tokens)


def _limits(between: Between) -> Iterable[LimitRow]:
    for own, used in between.after.of("headgate_limit_used_ratio"):
        tenant, limit = own["tenant"], own["limit"]
        refusals = between.rate("headgate_refusals_total", tenant=tenant, limit=limit)
        yield LimitRow(tenant, limit, used, refusals)
