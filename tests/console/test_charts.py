"""Charts: no bar leaves its chart, and all of them together are the whole."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.console.charts import HEIGHT, Column, bars
from headgate.console.over_time import MEASURES, NANOS_PER_UNIT, over_time, slots_of
from headgate.ledger.conditions import Condition, Scope
from headgate.ledger.sums import Step, sums_of, sums_over_time
from tests.console.conftest import NOW_S, Console

BERLIN = ZoneInfo("Europe/Berlin")
JANUARY, NOW = datetime(2027, 1, 1, tzinfo=UTC), datetime.fromtimestamp(NOW_S, UTC)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=40))
def test_no_bar_leaves_its_chart(values: list[int]) -> None:
    chart = bars([Column(values=(("f1", value),), title="") for value in values])

    assert all(part.y >= 15.9 for bar in chart.bars for part in bar.parts)


@pytest.mark.parametrize("measure", MEASURES)
async def test_a_chart_over_time_has_the_whole_measure(console: Console, measure: str) -> None:
    conditions = [Condition("since", JANUARY)]
    scope, step = Scope(sees_all=True), Step("day", "Europe/Berlin")
    async with console.desk.connect() as connection:
        rows = await sums_over_time(connection, scope, conditions, "user", step)
        whole = await sums_of(connection, scope, conditions)
    unit = NANOS_PER_UNIT if measure == "cost" else 1
    shown = over_time(rows, measure, slots_of(JANUARY, NOW, "day", BERLIN))
    heights = [part.height for bar in shown.bars.bars for part in bar.parts]
    [(value, y), _] = shown.bars.grid
    drawn = sum(heights) * value / (HEIGHT - y)

    assert drawn == pytest.approx(sum(whole[name] // unit for name in MEASURES[measure]), abs=5)
    assert (await console.get("operator", f"/explore?of={measure}&by=user")).status_code == 200


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_a_day_on_which_clocks_change_is_one_slot(day: str) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=BERLIN) - timedelta(days=1)
    found = slots_of(begin, begin + timedelta(days=3), "day", BERLIN)

    assert [f"{at:%d}" for at in found.begins] == [
        f"{begin + timedelta(days=n):%d}" for n in range(3)
    ]
