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
    `own_nanos` is the cost of the machines by allocation: idle is in it.
    """

    name: str
    day: date
    cloud_nanos: int
    own_nanos: int
    models_without: tuple[str, ...]

    @property
    def saving_nanos(self) -> int:
        """The saving of the own machines; below 0 it is a loss."""
        return self.cloud_nanos - self.own_nanos


def comparisons(report: MonthReport) -> list[Comparison]:
    """A comparison with each list of the report. Idle that nobody used counts where all can."""
    return [_comparison(report, one) for one in report.clouds]


def cloud_cost(cloud: CloudList, lines: Iterable[Line]) -> int | None:
    """The cost of lines in nanos, each rounded up; None if the list lacks a model's price."""
    costs = [_cost(cloud, line) for line in lines]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _comparison(report: MonthReport, cloud: CloudList) -> Comparison:
    billed = [line for line in report.lines if line.is_billed]
    priced = [line for line in billed if _prices_of(cloud, line) is not None]
    without = sorted({line.model for line in billed} - {line.model for line in priced})
    unshared = sum(pool.unshared_nanos for pool in report.pools if _has_all(cloud, pool.models))
    return Comparison(
        name=cloud.name,
        day=cloud.day,
        cloud_nanos=cloud_cost(cloud, priced) or 0,
        own_nanos=sum(line.shared_nanos for line in priced) + unshared,
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
        requests=usage.requests,
    )


@lru_cache(maxsize=1_024)
def prices_of(kinds: tuple[tuple[str, str], ...]) -> Prices:
    """Prices from decimal text by kind."""
    return Prices(**{kind: Decimal(text) for kind, text in kinds})
