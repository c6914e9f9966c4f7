"""Builds the report of a month from its lines and the settings. Pure."""

from collections.abc import Mapping, Sequence

from headgate.core.policy import CompiledPolicy, Count, Per, Windowed
from headgate.core.prices import Prices
from headgate.core.showback import CloudPrices
from headgate.ledger.showback.pools import pool_months, with_shares
from headgate.ledger.showback.values import CloudList, Line, MonthReport, Period


def month_report(
    policy: CompiledPolicy,
    period: Period,
    lines: Sequence[Line],
    prices: Mapping[str, Mapping[str, str]],
    without_rows: Sequence[str] = (),
) -> MonthReport:
    """The report, with each line's share of the pools. `lines` hold corrections, too.

    `prices` are those of the price versions that the lines name.
    """
    settings = policy.showback
    weights = settings.weights.input, settings.weights.cached_input, settings.weights.output
    ordered = sorted(lines, key=_order)
    pools = pool_months(settings.pools, period, ordered, weights)
    return MonthReport(
        period=period,
        currency=policy.currency or "",
        weights=weights,
        label=settings.label,
        lines=with_shares(ordered, pools, weights),
        pools=pools,
        clouds=tuple(_cloud(one) for one in settings.clouds),
        prices={version: dict(sorted(prices[version].items())) for version in sorted(prices)},
        budgets=budgets(policy),
        without_rows=tuple(without_rows),
    )


def budgets(policy: CompiledPolicy) -> dict[str, int]:
    """The budget of each tenant that has one, in nanos.

    It is the smallest limit of cost in a month for the whole tenant that refuses.
    """
    found: dict[str, int] = {}
    for name, tenant in sorted(policy.tenants.items()):
        limits = [
            limit.limit
            for limit in tenant.limits
            if limit.count is Count.COST
            and isinstance(limit.shape, Windowed)
            and limit.shape.per is Per.MONTH
            and not (limit.each or limit.users or limit.models or limit.shadow)
        ]
        if limits:
            found[name] = min(limits)
    return found


def _cloud(cloud: CloudPrices) -> CloudList:
    models = sorted(cloud.models.items())
    return CloudList(
        name=cloud.name, day=cloud.day, prices={name: _kinds(one) for name, one in models}
    )


def _kinds(prices: Prices) -> dict[str, str]:
    return dict(sorted(prices.by_kind().items()))


def _order(line: Line) -> tuple[str, ...]:
    return (
        line.corrects or "",
        line.tenant,
        line.person,
        line.model,
        line.base,
        line.label,
        line.price_version,
        line.reason or "",
    )
