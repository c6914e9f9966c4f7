"""Decides from measurements whether a canary is worse than the stable version. Pure.

Few requests prove little. Rates are compared by their intervals, not by their points. Quantiles
and means need a minimum of samples. A measure without data is never "ok".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, sqrt

from headgate.canary.queries import FINISH_REASONS

Z95 = 1.96
"""Of a normal distribution: an interval that holds the true rate in 95 of 100 cases."""


class Verdict(StrEnum):
    """The judgement of one comparison."""

    OK = "ok"
    WORSE = "worse"
    TOO_FEW = "too few samples"
    NO_DATA = "no data"
    SHOWN = "-"
    """Not judged: people read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The values above which a canary is worse. `min_samples` holds for each part."""

    min_samples: int = 100
    error_rate: float = 0.05
    """The canary's own rate, at any rate of the stable version."""
    latency_ratio: float = 1.25
    """Of TTFT and time per token. vLLM's buckets are coarse: less is the noise of their widths."""
    waiting: float = 5.0
    """Requests in the queue of a pod, where it is also twice that of the stable version."""
    kv_cache: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """The measurements of one part. None where Prometheus has nothing, or NaN."""

    requests: float | None = None
    errors: float | None = None
    finished: float | None = None
    finish_reasons: Mapping[str, float | None] | None = None
    ttft_samples: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    per_token_samples: float | None = None
    per_token_s: float | None = None
    e2e_samples: float | None = None
    e2e_p95_s: float | None = None
    waiting: float | None = None
    kv_cache: float | None = None
    tokens_per_request: float | None = None

    def finished_with(self, reason: str) -> float | None:
        """How many requests vLLM finished for this reason."""
        return (self.finish_reasons or {}).get(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One measure of both parts. Samples are None for gauges."""

    name: str
    unit: str
    stable: float | None
    canary: float | None
    stable_samples: float | None
    canary_samples: float | None
    verdict: Verdict
    why: str = ""

    @property
    def ratio(self) -> float | None:
        """Canary divided by stable, where that means anything."""
        if self.stable is None or self.canary is None or self.stable == 0:
            return None
        return self.canary / self.stable


_Pair = tuple[float | None, float | None]
"""A measure of the stable version and of the canary."""
_Judgement = tuple[Verdict, str]
"""The verdict, and why."""
_OK: _Judgement = (Verdict.OK, "")
_SHOWN: _Judgement = (Verdict.SHOWN, "")
_GAUGE: _Pair = (None, None)
"""In the place of samples: gauges have none."""


def wilson(hits: float, total: float) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson's score interval): honest for few samples and for rates
    near 0, where the usual one claims certainty."""
    if total <= 0:
        return 0.0, 1.0
    rate = min(max(hits / total, 0.0), 1.0)
    shrink = 1 + Z95**2 / total
    middle = (rate + Z95**2 / (2 * total)) / shrink
    half = Z95 * sqrt(rate * (1 - rate) / total + Z95**2 / (4 * total**2)) / shrink
    return max(middle - half, 0.0), min(middle + half, 1.0)


def compare(
    stable: Measurements, canary: Measurements, limits: Thresholds, weight: float | None = None
) -> list[Comparison]:
    """All comparisons. `weight` is the canary's configured share in percent, if known."""
    ttft_samples = stable.ttft_samples, canary.ttft_samples
    ttft_p50_s = stable.ttft_p50_s, canary.ttft_p50_s
    ttft_p95_s = stable.ttft_p95_s, canary.ttft_p95_s
    per_token_samples = stable.per_token_samples, canary.per_token_samples
    per_token_s = stable.per_token_s, canary.per_token_s
    e2e_samples = stable.e2e_samples, canary.e2e_samples
    e2e_p95_s = stable.e2e_p95_s, canary.e2e_p95_s
    tokens = stable.tokens_per_request, canary.tokens_per_request
    rows = [
        _requests(stable, canary, limits),
        _share(stable, canary, weight),
        _error_rate(stable, canary, limits),
        _engine_errors(stable, canary, limits),
        _latency("TTFT p50", ttft_p50_s, ttft_samples, limits),
        _latency("TTFT p95", ttft_p95_s, ttft_samples, limits),
        _latency("time per token", per_token_s, per_token_samples, limits),
        _comparison("end to end p95", "s", e2e_p95_s, e2e_samples, _SHOWN),
        _queue(stable, canary, limits),
        _kv_cache(stable, canary, limits),
        _comparison("tokens per request", "", tokens, ttft_samples, _SHOWN),
    ]
    return rows + [_finish_reason(reason, stable, canary) for reason in FINISH_REASONS]


def outcome(rows: list[Comparison]) -> Verdict:
    """The verdict of all rows: worse if any is worse; else unknown if any is unknown; else ok."""
    verdicts = {row.verdict for row in rows}
    for verdict in (Verdict.WORSE, Verdict.NO_DATA, Verdict.TOO_FEW):
        if verdict in verdicts:
            return verdict
    return Verdict.OK


def known(value: float | None) -> float | None:
    """A number, or None: Prometheus answers NaN where there was no sample."""
    return value if value is not None and isfinite(value) else None


def _lacking(samples: _Pair, limits: Thresholds) -> _Judgement | None:
    """The judgement where there are not enough samples, else None."""
    for name, count in zip(("stable", "canary"), samples, strict=True):
        if count is None:
            return Verdict.NO_DATA, f"nothing of {name}"
        if round(count) < limits.min_samples:  # `increase` extrapolates: 99.7 are 100
            return Verdict.TOO_FEW, f"{name} has {count:.0f} of {limits.min_samples}"
    return None


def _comparison(
    name: str, unit: str, values: _Pair, samples: _Pair, judgement: _Judgement
) -> Comparison:
    return Comparison(
        name=name,
        unit=unit,
        stable=values[0],
        canary=values[1],
        stable_samples=samples[0],
        canary_samples=samples[1],
        verdict=judgement[0],
        why=judgement[1],
    )


def _requests(stable: Measurements, canary: Measurements, limits: Thresholds) -> Comparison:
    counts = stable.requests, canary.requests
    return _comparison("requests", "", counts, counts, _lacking(counts, limits) or _OK)


def _share(stable: Measurements, canary: Measurements, weight: float | None) -> Comparison:
    counts = stable.requests, canary.requests
    total = (counts[0] or 0) + (counts[1] or 0)
    shares = _of(counts[0], total), _of(counts[1], total)
    why = "" if weight is None else f"configured: {weight:g} %"
    return _comparison("traffic share", "%", shares, counts, (Verdict.SHOWN, why))


def _error_rate(stable: Measurements, canary: Measurements, limits: Thresholds) -> Comparison:
    errors = stable.errors, canary.errors
    return _judged_rate("error rate", errors, (stable.requests, canary.requests), limits)


def _engine_errors(stable: Measurements, canary: Measurements, limits: Thresholds) -> Comparison:
    errors = stable.finished_with("error"), canary.finished_with("error")
    return _judged_rate("engine errors", errors, (stable.finished, canary.finished), limits)


def _judged_rate(name: str, hits: _Pair, totals: _Pair, limits: Thresholds) -> Comparison:
    """Worse: surely more than the stable version (the intervals do not touch), or surely above
    the highest rate allowed. A few bad requests among many samples are neither."""
    rates = _of(hits[0], totals[0]), _of(hits[1], totals[1])
    lacking = _lacking(totals, limits)
    if lacking is None and None in rates:
        lacking = Verdict.NO_DATA, ""
    if lacking is not None:
        return _comparison(name, "%", rates, totals, lacking)
    (_, high), (low, _) = (
        wilson(hit or 0, total or 0) for hit, total in zip(hits, totals, strict=True)
    )
    judgement = _OK
    if low > limits.error_rate:
        judgement = Verdict.WORSE, f"at least {low:.1%}, {limits.error_rate:.0%} allowed"
    elif low > high:
        judgement = Verdict.WORSE, f"at least {low:.1%}, stable at most {high:.1%}"
    return _comparison(name, "%", rates, totals, judgement)


def _latency(name: str, values: _Pair, samples: _Pair, limits: Thresholds) -> Comparison:
    stable, canary = values
    judgement = _OK
    if (lacking := _lacking(samples, limits)) is not None:
        judgement = lacking
    elif stable is None or canary is None:
        judgement = Verdict.NO_DATA, ""
    elif canary > stable * limits.latency_ratio:
        judgement = Verdict.WORSE, f"above {limits.latency_ratio:g} of stable"
    return _comparison(name, "s", values, samples, judgement)


def _queue(stable: Measurements, canary: Measurements, limits: Thresholds) -> Comparison:
    judgement = _OK
    if canary.waiting is None or stable.waiting is None:
        judgement = Verdict.NO_DATA, _nothing_of(stable.waiting)
    elif canary.waiting > limits.waiting and canary.waiting > 2 * stable.waiting:
        judgement = Verdict.WORSE, f"above {limits.waiting:g} and twice that of stable"
    values = stable.waiting, canary.waiting
    return _comparison("waiting for each pod", "", values, _GAUGE, judgement)


def _kv_cache(stable: Measurements, canary: Measurements, limits: Thresholds) -> Comparison:
    judgement = _OK
    if canary.kv_cache is None or stable.kv_cache is None:
        judgement = Verdict.NO_DATA, _nothing_of(stable.kv_cache)
    elif canary.kv_cache > limits.kv_cache:
        judgement = Verdict.WORSE, f"above {limits.kv_cache:.0%}"
    values = stable.kv_cache, canary.kv_cache
    return _comparison("KV cache in use", "%", values, _GAUGE, judgement)


def _nothing_of(stable: float | None) -> str:
    return "nothing of stable" if stable is None else "nothing of canary"


def _finish_reason(reason: str, stable: Measurements, canary: Measurements) -> Comparison:
    totals = stable.finished, canary.finished
    rates = (
        _of(stable.finished_with(reason), totals[0]),
        _of(canary.finished_with(reason), totals[1]),
    )
    return _comparison(f"finished: {reason}", "%", rates, totals, _SHOWN)


def _of(hits: float | None, total: float | None) -> float | None:
    if hits is None or total is None or total <= 0:
        return None
    return hits / total
