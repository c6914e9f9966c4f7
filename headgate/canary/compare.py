"""Whether a canary is worse than the stable version, from what was counted. Pure.

Few requests prove little. Rates are compared by their intervals, not by their points; quantiles
and means need a minimum of samples; and what nobody has measured is never "ok".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, sqrt

from headgate.canary.queries import FINISH_REASONS

Z95 = 1.96
"""Of a normal distribution: an interval that holds the true rate in 95 of 100 cases."""


class Verdict(StrEnum):
    """What is said of one row."""

    OK = "ok"
    WORSE = "worse"
    TOO_FEW = "too few samples"
    NO_DATA = "no data"
    SHOWN = "-"
    """Not judged: it is for people to read."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a canary is worse. `min_samples` holds for each part."""

    min_samples: int = 100
    error_rate: float = 0.05
    """The canary's own, whatever the stable version's."""
    latency_ratio: float = 1.25
    """Of TTFT and time per token. vLLM's buckets are coarse: less is the noise of their widths."""
    waiting: float = 5.0
    """Requests in the queue of a pod, where it is also twice that of the stable version."""
    kv_cache: float = 0.95


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of one part. None where Prometheus has nothing, or NaN."""

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


@dataclass(frozen=True, slots=True)
class Row:
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
    stable: Seen, canary: Seen, limits: Thresholds, weight: float | None = None
) -> list[Row]:
    """All rows. `weight` is the canary's configured share in percent, if known."""
    rows = [
        _requests(stable, canary, limits),
        _share(stable, canary, weight),
        _rate("error rate", stable, canary, limits, ("errors", "requests")),
        _engine_errors(stable, canary, limits),
        _latency("TTFT p50", stable, canary, limits, ("ttft_p50_s", "ttft_samples")),
        _latency("TTFT p95", stable, canary, limits, ("ttft_p95_s", "ttft_samples")),
        _latency("time per token", stable, canary, limits, ("per_token_s", "per_token_samples")),
        _shown("end to end p95", "s", stable, canary, ("e2e_p95_s", "e2e_samples")),
        _queue(stable, canary, limits),
        _kv_cache(stable, canary, limits),
        _shown("tokens per request", "", stable, canary, ("tokens_per_request", "ttft_samples")),
    ]
    return rows + [_finish_reason(reason, stable, canary) for reason in FINISH_REASONS]


def outcome(rows: list[Row]) -> Verdict:
    """Of all rows: worse if one is; else not known, if one is; else ok."""
    said = {row.verdict for row in rows}
    for verdict in (Verdict.WORSE, Verdict.NO_DATA, Verdict.TOO_FEW):
        if verdict in said:
            return verdict
    return Verdict.OK


def known(value: float | None) -> float | None:
    """A number, or None: Prometheus says NaN where nothing came."""
    return value if value is not None and isfinite(value) else None


def _samples_verdict(
    counts: tuple[float | None, float | None], limits: Thresholds
) -> tuple[Verdict, str] | None:
    for name, count in zip(("stable", "canary"), counts, strict=True):
        if count is None:
            return Verdict.NO_DATA, f"nothing of {name}"
        if round(count) < limits.min_samples:  # `increase` extrapolates: 99.7 are 100
            return Verdict.TOO_FEW, f"{name} has {count:.0f} of {limits.min_samples}"
    return None


def _requests(stable: Seen, canary: Seen, limits: Thresholds) -> Row:
    counts = stable.requests, canary.requests
    verdict, why = _samples_verdict(counts, limits) or (Verdict.OK, "")
    return Row("requests", "", *counts, *counts, verdict, why)


def _share(stable: Seen, canary: Seen, weight: float | None) -> Row:
    counts = stable.requests, canary.requests
    total = (counts[0] or 0) + (counts[1] or 0)
    shares = _of(counts[0], total), _of(counts[1], total)
    why = "" if weight is None else f"configured: {weight:g} %"
    return Row("traffic share", "%", *shares, *counts, Verdict.SHOWN, why)


def _rate(
    name: str, stable: Seen, canary: Seen, limits: Thresholds, fields: tuple[str, str]
) -> Row:
    hits = tuple(getattr(part, fields[0]) for part in (stable, canary))
    totals = getattr(stable, fields[1]), getattr(canary, fields[1])
    return _judged_rate(name, (hits[0], hits[1]), totals, limits)


def _engine_errors(stable: Seen, canary: Seen, limits: Thresholds) -> Row:
    hits = tuple((part.finish_reasons or {}).get("error") for part in (stable, canary))
    totals = stable.finished, canary.finished
    return _judged_rate("engine errors", (hits[0], hits[1]), totals, limits)


def _judged_rate(
    name: str,
    hits: tuple[float | None, float | None],
    totals: tuple[float | None, float | None],
    limits: Thresholds,
) -> Row:
    """Worse: surely more than the stable version (the intervals do not touch), or surely above
    what is allowed at all. A few bad requests among many samples are neither."""
    rates = _of(hits[0], totals[0]), _of(hits[1], totals[1])
    lacking = _samples_verdict(totals, limits)
    if rates[0] is None or rates[1] is None:
        lacking = lacking or (Verdict.NO_DATA, "")
    if lacking is not None:
        return Row(name, "%", *rates, *totals, *lacking)
    (_, high), (low, _) = (
        wilson(hit or 0, total or 0) for hit, total in zip(hits, totals, strict=True)
    )
    verdict, why = Verdict.OK, ""
    if low > limits.error_rate:
        verdict, why = Verdict.WORSE, f"at least {low:.1%}, {limits.error_rate:.0%} allowed"
    elif low > high:
        verdict, why = Verdict.WORSE, f"at least {low:.1%}, stable at most {high:.1%}"
    return Row(name, "%", *rates, *totals, verdict, why)


def _latency(
    name: str, stable: Seen, canary: Seen, limits: Thresholds, fields: tuple[str, str]
) -> Row:
    row = _shown(name, "s", stable, canary, fields)
    counts = row.stable_samples, row.canary_samples
    lacking = _samples_verdict(counts, limits)
    if lacking is None and (row.stable is None or row.canary is None):
        lacking = Verdict.NO_DATA, ""
    if lacking is not None:
        verdict, why = lacking
    elif row.canary is not None and row.canary > (row.stable or 0) * limits.latency_ratio:
        verdict, why = Verdict.WORSE, f"above {limits.latency_ratio:g} of stable"
    else:
        verdict, why = Verdict.OK, ""
    return Row(name, "s", row.stable, row.canary, *counts, verdict, why)


def _queue(stable: Seen, canary: Seen, limits: Thresholds) -> Row:
    verdict, why = Verdict.OK, ""
    if canary.waiting is None or stable.waiting is None:
        verdict, why = Verdict.NO_DATA, _nothing_of(stable.waiting)
    elif canary.waiting > limits.waiting and canary.waiting > 2 * stable.waiting:
        verdict, why = Verdict.WORSE, f"above {limits.waiting:g} and twice that of stable"
    return Row("waiting for each pod", "", stable.waiting, canary.waiting, None, None, verdict, why)


def _kv_cache(stable: Seen, canary: Seen, limits: Thresholds) -> Row:
    verdict, why = Verdict.OK, ""
    if canary.kv_cache is None or stable.kv_cache is None:
        verdict, why = Verdict.NO_DATA, _nothing_of(stable.kv_cache)
    elif canary.kv_cache > limits.kv_cache:
        verdict, why = Verdict.WORSE, f"above {limits.kv_cache:.0%}"
    return Row("KV cache in use", "%", stable.kv_cache, canary.kv_cache, None, None, verdict, why)


def _nothing_of(stable: float | None) -> str:
    return "nothing of stable" if stable is None else "nothing of canary"


def _finish_reason(reason: str, stable: Seen, canary: Seen) -> Row:
    rates = [
        _of((part.finish_reasons or {}).get(reason), part.finished) for part in (stable, canary)
    ]
    return Row(
        f"finished: {reason}",
        "%",
        rates[0],
        rates[1],
        stable.finished,
        canary.finished,
        Verdict.SHOWN,
    )


def _shown(name: str, unit: str, stable: Seen, canary: Seen, fields: tuple[str, str]) -> Row:
    value, samples = fields
    return Row(
        name,
        unit,
        getattr(stable, value),
        getattr(canary, value),
        getattr(stable, samples),
        getattr(canary, samples),
        Verdict.SHOWN,
    )


def _of(hits: float | None, total: float | None) -> float | None:
    if hits is None or total is None or total <= 0:
        return None
    return hits / total
