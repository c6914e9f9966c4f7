"""Statements of the reconciliation for the demo: vLLM's made-up counters beside its ledger."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection
from headgate.ledger.engine_counters import EngineTokens
from headgate.ledger.reconcile import LedgerTokens, compare, read_ledger
from headgate.ledger.reconciled import keep_statement, reconciled_within
from headgate.ledger.showback.period import period_of
from headgate.program.demo import DEMO_MODEL
from headgate.program.demo_month import Connect, demo_months

_DAY = timedelta(days=1)


async def reconcile_demo_months(connect: Connect, clock: Clock, policy: CompiledPolicy) -> None:
    """Keeps a statement of each whole day of the demo's months that has none yet."""
    now = datetime.fromtimestamp(clock.now_s(), UTC)
    async with connect() as connection:
        for begin, end in _days(now, policy):
            if not (await reconciled_within(connection, begin, end)).covered:
                await _keep_day(connection, begin, end)


async def _keep_day(connection: Connection, begin: datetime, end: datetime) -> None:
    ledger = await read_ledger(connection, begin, end)
    await keep_statement(connection, (begin, end), end, compare(_engines(ledger), ledger))


def _engines(ledger: Mapping[str, LedgerTokens]) -> dict[str, EngineTokens]:
    """vLLM worked on a third of what no usage tells, and on one answer that passed the gateway."""
    return {
        pod: EngineTokens(
            model=DEMO_MODEL,
            prompt=one.prompt + one.unsure // 3,
            completion=one.completion + (0 if one.unsure else one.completion // 2_000),
        )
        for pod, one in ledger.items()
    }


def _days(now: datetime, policy: CompiledPolicy) -> Iterator[tuple[datetime, datetime]]:
    """The days of the months until now. Where clocks change, the last piece is not 24 hours."""
    for month in demo_months(now, policy):
        period = period_of(month, policy.showback)
        begin = period.begin
        while begin < period.end:
            end = min(begin + _DAY, period.end)
            if end <= now:
                yield begin, end
            begin = end
