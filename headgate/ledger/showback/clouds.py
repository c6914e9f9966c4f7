"""The cost of the same tokens at the prices of a cloud. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache

from headgate.core.prices import Prices
from headgate.ledger.showback.values import CloudList, Line, MonthReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The whole month at the prices of a list, beside the machines that it was computed on.

    Only models with a price in the list count, on both sides; `models_without` are the others.
    `own_nanos` is the cost of the machines by allocation: idle is in it. None says that no pool
    has a share, so that nothing is known of it.
    """

    name: str
    day: date
    cloud_nanos: int
    own_nanos: int | None
    models_without: tuple[str, ...]

    @property
    def saving_nanos(self) -> int | None:
        """The saving of the own machines; below 0 it is a loss."""
        return None if self.own_nanos is None else self.cloud_nanos - self.own_nanos


def comparisons(report: MonthReport, tenant: str | None = None) -> list[Comparison]:
    """A comparison with each list of the report. With `tenant`, of its usage alone.

    Idle that nobody shares counts where the list prices all models of the pool.
    """
    return [_comparison(report, one, tenant) for one in report.clouds]


def unshared_cost(report: MonthReport, cloud: CloudList) -> int:
    """The idle that nobody shares, of pools whose models all have a price in the list."""
    return sum(pool.unshared_nanos for pool in report.pools if _has_all(cloud, pool.models))


def cloud_cost(cloud: CloudList, lines: Iterable[Line]) -> int | None:
    """The cost of lines in nanos, each rounded up; None if the list lacks a model's price."""
    costs = [_cost(cloud, line) for line in lines]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def cached_discount(report: MonthReport, tenant: str | None = None) -> int:
    """The nanos that billed cached tokens would have cost more as other input, rounded down."""
    saved = Decimal(0)
    for line in report.lines:
        kinds = report.prices.get(line.price_version)
        if kinds is not None and line.is_billed and tenant in (None, line.tenant):
            less = Decimal(kinds.get("input", "0")) - Decimal(kinds.get("cached_input", "0"))
            saved += line.usage.cached_tokens * less
    return int(saved.scaleb(3))


def _comparison(report: MonthReport, cloud: CloudList, tenant: str | None) -> Comparison:
    billed = [line for line in report.lines if line.is_billed and tenant in (None, line.tenant)]
    priced = [line for line in billed if _prices_of(cloud, line) is not None]
    without = sorted({line.model for line in billed} - {line.model for line in priced})
    own = sum(line.shared_nanos for line in priced)
    own += unshared_cost(report, cloud) if tenant is None else 0
    has_pools = bool(report.pools) or any(line.shared_nanos for line in report.lines)
    return Comparison(
        name=cloud.name,
        day=cloud.day,
        cloud_nanos=cloud_cost(cloud, priced) or 0,
        own_nanos=own if has_pools else None,
        models_without=tuple(without),
    )


def _has_all(cloud: CloudList, models: Sequence[str]) -> bool:
    return all(model in cloud.prices for model in models)


def _prices_of(cloud: CloudList, line: Line) -> Prices | None:
    """Those of the model; an adapter without its own has its base's."""
    kinds = cloud.prices.get(line.model) or cloud.prices.get(line.base)
    return None if kinds is None else prices_of(tuple(sorted(kinds.items())))


def _cost(cloud: CloudList, line: Line) -> int | None:
    prices = _prices_of(cloud, line)
    if prices is None:
        return None
    usage = line.usage
    return prices.cost(
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        reasoning=usage.reasoning_tokens,
        audio_seconds=usage.audio_seconds,
        requests=usage.requests - usage.hits,
    )


@lru_cache(maxsize=1_024)
def prices_of(kinds: tuple[tuple[str, str], ...]) -> Prices:
    """Prices from decimal text by kind."""
    return Prices(**{kind: Decimal(text) for kind, text in kinds})
