"""Reports from nothing but numbers, and strategies that make them."""

from dataclasses import fields
from datetime import UTC, datetime

from hypothesis import strategies as st

from headgate.ledger.showback.build import month_report
from headgate.ledger.showback.period import period_of
from headgate.ledger.showback.values import Line, MonthReport, Reason, Statement, Usage
from tests.ledger.showback.months import AFTER, policy

POLICY = policy()
PERIOD = period_of("2026-10", POLICY.showback)
BASES = {"large": "large", "small": "small", "tuned": "large"}
EARLIER = datetime(2026, 10, 10, tzinfo=UTC)

_MEASURES = {field.name for field in fields(Usage)}
usages = st.builds(
    Usage,
    requests=st.integers(1, 10**6),
    input_tokens=st.integers(0, 10**10),
    cached_tokens=st.integers(0, 10**10),
    output_tokens=st.integers(0, 10**10),
    cost_nanos=st.integers(0, 10**15),
    hits=st.integers(0, 10**6),
    hit_tokens=st.integers(0, 10**10),
)


def line(tenant: str = "acme", person: str = "p1", model: str = "large", **changes: object) -> Line:
    """A billed line; `changes` are its other fields, or those of its usage."""
    usage = {name: changes.pop(name) for name in list(changes) if name in _MEASURES}
    values: dict[str, object] = {
        "label": "",
        "price_version": "",
        "reason": None,
        "corrects": None,
        "usage": Usage(**{"requests": 1, **usage}),  # type: ignore[arg-type]
        **changes,
    }
    return Line(tenant=tenant, person=person, model=model, base=BASES[model], **values)  # type: ignore[arg-type]


def report(*lines: Line) -> MonthReport:
    return month_report(POLICY, PERIOD, lines, {})


def shown(one: MonthReport, before: MonthReport | None = None, at: datetime = AFTER) -> Statement:
    return Statement(report=one, at=at, closing=None, before=before, names={})


def _line(key: tuple[str, str, str, str, Reason | None], usage: Usage) -> Line:
    tenant, person, model, label, reason = key
    counted = usage if reason is None else Usage(requests=usage.requests)
    return line(tenant, person, model, label=label, reason=reason, usage=counted)


_keys = st.tuples(
    st.sampled_from(["acme", "globex", "=evil"]),
    st.sampled_from(["", "p1", "p2", "p3"]),
    st.sampled_from(["large", "small", "tuned"]),
    st.sampled_from(["", "4100", "@cmd"]),
    st.sampled_from([None, None, None, Reason.LIMIT, Reason.FAILED]),
)
month_lines = st.dictionaries(_keys, usages, max_size=30).map(
    lambda found: [_line(key, usage) for key, usage in found.items()]
)
