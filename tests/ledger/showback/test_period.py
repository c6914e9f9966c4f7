"""Months by time zone and billing day, also where the clocks change."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.showback import Showback
from headgate.ledger.showback.period import month_at, month_before, period_of

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Africa/Cairo", "Asia/Tehran")


@pytest.mark.parametrize(
    ("month", "zone", "hours", "changes"),
    [
        ("2026-10", "Europe/Berlin", 745, (date(2026, 10, 25),)),
        ("2026-03", "Europe/Berlin", 743, (date(2026, 3, 29),)),
        ("2026-11", "America/New_York", 721, (date(2026, 11, 1),)),
        ("2026-10", "UTC", 744, ()),
    ],
)
def test_a_month_with_a_change_of_clocks_has_an_hour_more_or_less(
    month: str, zone: str, hours: int, changes: tuple[date, ...]
) -> None:
    period = period_of(month, Showback(timezone=zone, bill_timezone="UTC"))

    assert (period.hours, period.clock_changes) == (hours, changes)
    assert period.bill_begin == datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
    assert period.bill_hours == (720 if month == "2026-11" else 744)


def test_a_month_begins_at_local_midnight_of_the_billing_day_or_of_a_shorter_months_last() -> None:
    berlin = Showback(timezone="Europe/Berlin", billing_day=31)

    assert period_of("2026-01", berlin).begin == datetime(2026, 1, 30, 23, tzinfo=UTC)
    assert period_of("2026-01", berlin).end == datetime(2026, 2, 27, 23, tzinfo=UTC)
    assert period_of("2026-02", berlin).end == datetime(2026, 3, 30, 22, tzinfo=UTC)


@given(
    st.sampled_from(ZONES),
    st.integers(1, 31),
    st.dates(date(2001, 2, 1), date(2098, 12, 1)),
)
def test_each_month_begins_where_the_one_before_ends(zone: str, day: int, at: date) -> None:
    settings = Showback(timezone=zone, billing_day=day)
    month = f"{at:%Y-%m}"
    period, earlier = period_of(month, settings), period_of(month_before(month), settings)

    assert earlier.end == period.begin < period.end
    assert month_at(period.begin, settings) == month
    assert month_at(period.end - timedelta(microseconds=1), settings) == month
