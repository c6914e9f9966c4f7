"""The reconciliation of a month as its page shows it: a row for each pod, and their sum. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from headgate.ledger.reconcile import BOUND_PERCENT, Compared
from headgate.ledger.reconciled import Reconciled
from headgate.ledger.showback.values import Period

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciledRow:
    """Both accounts of a pod, in tokens: engine - ledger = explained + unexplained.

    The two parts have the sign of the difference.
    """

    pod: str
    model: str
    engine: int
    ledger: int
    explained: int
    unexplained: int
    is_within: bool

    @property
    def difference(self) -> int:
        """The tokens by vLLM that the ledger lacks."""
        return self.engine - self.ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The statements of a month. They stand for `covered_h` of its `of_h` hours until now."""

    rows: Sequence[ReconciledRow]
    covered_h: int
    of_h: int
    compared_at: datetime
    bound_percent: float

    @property
    def is_within(self) -> bool:
        """Whether each pod is within the bound."""
        return all(row.is_within for row in self.rows)

    @property
    def total(self) -> ReconciledRow:
        """The sum of the rows."""
        return ReconciledRow(
            pod="",
            model="",
            engine=sum(row.engine for row in self.rows),
            ledger=sum(row.ledger for row in self.rows),
            explained=sum(row.explained for row in self.rows),
            unexplained=sum(row.unexplained for row in self.rows),
            is_within=self.is_within,
        )


def reconciliation_of(found: Reconciled, period: Period, now: datetime) -> Reconciliation | None:
    """The reconciliation of a month, None if no statement is kept."""
    if found.compared_at is None:
        return None
    return Reconciliation(
        rows=[_row(one) for one in found.lines],
        covered_h=found.covered // _HOUR,
        of_h=(min(period.end, now) - period.begin) // _HOUR,
        compared_at=found.compared_at,
        bound_percent=BOUND_PERCENT,
    )


def _row(one: Compared) -> ReconciledRow:
    sign = -1 if one.difference < 0 else 1
    return ReconciledRow(
        pod=one.pod,
        model=one.engine.model,
        engine=one.engine_tokens,
        ledger=one.ledger.prompt + one.ledger.completion,
        explained=sign * one.explained,
        unexplained=sign * one.unexplained,
        is_within=one.is_within(BOUND_PERCENT),
    )
