"""The report as sheets: titles, columns and cells, the same for every format. Pure."""

from headgate.ledger.showback.clouds import cached_discount, comparisons
from headgate.ledger.showback.corrections import is_of_repricing
from headgate.ledger.showback.groups import corrections, not_billed, total_row
from headgate.ledger.showback.table import Cell, Column, Sheet, Unit, column_sum
from headgate.ledger.showback.usage_sheet import usage_sheet
from headgate.ledger.showback.values import By, Statement


def sheets(statement: Statement, by: By, tenant: str | None = None) -> list[Sheet]:
    """All sheets of a report. With `tenant`, those that are about this tenant alone."""
    pools = [_pools(statement)] if tenant is None else []
    return [
        usage_sheet(statement, by, tenant),
        *pools,
        _clouds(statement, tenant),
        _not_billed(statement, tenant),
        _corrections(statement, tenant),
    ]


def _pools(statement: Statement) -> Sheet:
    money = Unit.MONEY
    columns = (
        Column("pool", Unit.TEXT),
        Column("kind", Unit.TEXT),
        Column("models", Unit.TEXT),
        Column("quantity", Unit.TEXT),
        Column("rate", Unit.TEXT),
        Column("amount", money, True),
        Column("used", money, True),
        Column("idle", money, True),
        Column("idle_is", Unit.TEXT),
    )
    rows = tuple(
        (
            pool.name,
            pool.kind,
            ", ".join(pool.models),
            pool.quantity,
            pool.rate,
            pool.amount_nanos,
            pool.used_nanos,
            pool.idle_nanos + pool.unshared_nanos,
            _idle_basis(pool.unshared_nanos, is_known=pool.is_idle_known),
        )
        for pool in statement.report.pools
    )
    total: tuple[Cell, ...] = (
        "total",
        "",
        "",
        "",
        "",
        *(column_sum(rows, at) for at in (5, 6, 7)),
        "",
    )
    return Sheet("pools", columns, rows, total)


def _idle_basis(unshared: int, *, is_known: bool) -> str:
    if unshared:
        return "shared by nobody: there was no use"
    return "shared by use" if is_known else "not known: the pool has no full_tokens_per_s"


def _clouds(statement: Statement, tenant: str | None) -> Sheet:
    money = Unit.MONEY
    columns = (
        Column("list", Unit.TEXT),
        Column("day", Unit.TEXT),
        Column("cost_there", money),
        Column("own_pools", money),
        Column("saving", money),
        Column("result", Unit.TEXT),
        Column("models_without_price", Unit.TEXT),
    )
    rows = tuple(
        (
            one.name,
            one.day.isoformat(),
            one.cloud_nanos,
            one.own_nanos,
            one.saving_nanos,
            _result(one.saving_nanos),
            ", ".join(one.models_without),
        )
        for one in comparisons(statement.report, tenant)
    )
    return Sheet("build or buy", columns, rows)


def _result(saving: int | None) -> str:
    if saving is None:
        return "not known: no pool of machines has a share"
    return "loss" if saving < 0 else "saving"


def _not_billed(statement: Statement, tenant: str | None) -> Sheet:
    """Requests by reason; then tokens that were billed at less, or that nobody has confirmed."""
    columns = (
        Column("reason", Unit.TEXT),
        Column("requests", Unit.COUNT, True),
        Column("tokens", Unit.COUNT),
        Column("amount", Unit.MONEY),
    )
    counts = not_billed(statement.report, tenant)
    usage = total_row(statement, tenant).usage
    rows: tuple[tuple[Cell, ...], ...] = (
        *((reason.value, number, None, None) for reason, number in counts.items()),
        ("cached", None, usage.cached_tokens, cached_discount(statement.report, tenant)),
        ("estimated", None, usage.estimated_tokens, None),
    )
    return Sheet("not billed", columns, rows, ("total", sum(counts.values()), None, None))


def _corrections(statement: Statement, tenant: str | None) -> Sheet:
    columns = (
        Column("corrects", Unit.TEXT),
        Column("tenant", Unit.TEXT),
        Column("user_id", Unit.TEXT),
        Column("model", Unit.TEXT),
        Column("reason", Unit.TEXT),
        Column("requests", Unit.COUNT),
        Column("tokens", Unit.COUNT),
        Column("cost", Unit.MONEY, True),
    )
    rows = tuple(
        (
            line.corrects,
            line.tenant,
            line.person,
            line.model,
            line.price_version if is_of_repricing(line) else line.reason or "",
            line.usage.requests,
            line.usage.tokens,
            line.usage.cost_nanos,
        )
        for line in corrections(statement.report, tenant)
    )
    return Sheet("corrections", columns, rows)
