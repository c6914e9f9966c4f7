"""The cost of each pool in a month, and how much of it was used. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal

from headgate.core.showback import CostPool, PoolKind
from headgate.ledger.showback.split import Weights, shares, works
from headgate.ledger.showback.values import Line, Period, PoolMonth

_CENT = Decimal("0.01")
_NANOS_PER_CENT = 10**7
_S_PER_HOUR = 3600
_THOUSANDTHS = 1000


def with_shares(
    lines: Sequence[Line], pools: Sequence[PoolMonth], weights: Weights
) -> tuple[Line, ...]:
    """The lines with their shares of all pools."""
    used, idle = [0] * len(lines), [0] * len(lines)
    for pool in pools:
        for at, (one, other) in enumerate(zip(*shares(pool, lines, weights), strict=True)):
            used[at] += one
            idle[at] += other
    return tuple(
        replace(line, used_nanos=one, idle_nanos=other)
        for line, one, other in zip(lines, used, idle, strict=True)
    )


def pool_months(
    pools: Sequence[CostPool], period: Period, lines: Sequence[Line], weights: Weights
) -> tuple[PoolMonth, ...]:
    """The cost of each pool in the month.

    Pools that run the same model have shares of its work as they have of their amounts. A
    record does not say which machines had the request.
    """
    amounts = {pool.name: _amount(pool, period) for pool in pools}
    beside = {
        model: sum(amounts[pool.name] for pool in pools if model in pool.models)
        for model in {model for pool in pools for model in pool.models}
    }
    months = []
    for pool in pools:
        amount = amounts[pool.name]
        work = _part_of_work(pool, lines, weights, (amount, beside))
        months.append(_month(pool, period, amount, work))
    return tuple(months)


def _month(pool: CostPool, period: Period, amount: int, work: int) -> PoolMonth:
    used = _used(pool, period, amount, work)
    quantity, rate = _basis(pool, period)
    return PoolMonth(
        name=pool.name,
        kind=pool.kind,
        models=pool.models,
        quantity=quantity,
        rate=rate,
        amount_nanos=amount,
        used_nanos=used,
        idle_nanos=amount - used if work else 0,
        unshared_nanos=0 if work else amount,
        is_idle_known=pool.full_tokens_per_s is not None,
    )


def _part_of_work(
    pool: CostPool,
    lines: Sequence[Line],
    weights: Weights,
    amounts: tuple[int, Mapping[str, int]],
) -> int:
    """The pool's part of its models' work. `amounts` are its own, and those of models' pools."""
    own, of_models = amounts
    total = 0
    for line, work in zip(lines, works(pool.models, lines, weights), strict=True):
        if work:
            whole = of_models[line.base]
            total += work * own // whole if whole else work
    return total


def _used(pool: CostPool, period: Period, amount: int, work: int) -> int:
    """The used part of an amount: the work as a part of that at full load, in whole cents."""
    if work == 0:
        return 0
    if pool.full_tokens_per_s is None:
        return amount
    is_owned = pool.kind is PoolKind.OWNED
    hours = Decimal(period.bill_hours) if is_owned else _pod_hours(pool, period)
    full = int(hours * _S_PER_HOUR) * pool.full_tokens_per_s * _THOUSANDTHS
    if full <= work:
        return amount
    return amount * work // full // _NANOS_PER_CENT * _NANOS_PER_CENT


def _amount(pool: CostPool, period: Period) -> int:
    """The cost in the month, in nanos: whole cents."""
    if pool.kind is PoolKind.OWNED:
        electricity = pool.power_kw * period.bill_hours * pool.kwh_price
        cost = pool.hardware / pool.hardware_months + electricity
    else:
        cost = _pod_hours(pool, period) * pool.hour_price
    return int(cost.quantize(_CENT, ROUND_HALF_EVEN).scaleb(9))


def _pod_hours(pool: CostPool, period: Period) -> Decimal:
    return pool.pod_hours.get(period.month, Decimal(pool.pods * period.bill_hours))


def _basis(pool: CostPool, period: Period) -> tuple[str, str]:
    """The quantity and the rate, for people to read."""
    if pool.kind is PoolKind.OWNED:
        kwh = pool.power_kw * period.bill_hours
        return (
            f"{pool.hardware:f} over {pool.hardware_months} months, {kwh.normalize():f} kWh",
            f"{pool.kwh_price:f} per kWh",
        )
    if period.month in pool.pod_hours:
        return f"{pool.pod_hours[period.month]:f} pod hours", f"{pool.hour_price:f} per hour"
    pods = "1 pod" if pool.pods == 1 else f"{pool.pods} pods"
    return f"{pods} x {period.bill_hours} h", f"{pool.hour_price:f} per hour"
