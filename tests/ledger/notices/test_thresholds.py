"""Which thresholds are passed, as arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from headgate.ledger.notices.thresholds import forecast, passed, worth_sending
from ratelimit.windows import Window

DAY = Window(0, 86_400)
ALL = ("50", "80", "100", "forecast")


def test_a_threshold_is_passed_at_its_percent_and_not_a_token_earlier() -> None:
    assert passed(("50",), 499, 1000, DAY, 0) == ()
    assert passed(("50",), 500, 1000, DAY, 0) == ("50",)


def test_a_percent_of_a_limit_that_it_does_not_divide_is_passed_by_the_next_token() -> None:
    assert passed(("50",), 1, 3, DAY, 0) == ()
    assert passed(("50",), 2, 3, DAY, 0) == ("50",)


def test_the_pace_so_far_leads_beyond_the_limit() -> None:
    noon = 43_200

    assert passed(("forecast",), 500, 1000, DAY, noon) == ()
    assert passed(("forecast",), 501, 1000, DAY, noon) == ("forecast",)
    assert forecast(501, DAY, noon) == 1002


def test_there_is_no_forecast_before_a_tenth_of_the_window() -> None:
    assert forecast(900, DAY, 8_639) is None
    assert forecast(900, DAY, 8_640) == 9000


def test_there_is_no_forecast_outside_of_the_window() -> None:
    assert forecast(900, DAY, -1) is None
    assert forecast(900, DAY, 86_401) is None


def test_a_limit_that_is_used_up_needs_no_forecast() -> None:
    assert passed(ALL, 1000, 1000, DAY, 43_200) == ("50", "80", "100")


def test_the_highest_percent_is_sent_alone_and_the_forecast_beside_it() -> None:
    assert worth_sending(["50", "100", "80"]) == {"100"}
    assert worth_sending(["50", "80", "forecast"]) == {"80", "forecast"}
    assert worth_sending([]) == frozenset()


@given(st.integers(0, 2**53), st.integers(1, 2**53), st.integers(0, 86_400))
def test_more_use_never_takes_a_passed_percent_back(used: int, most: int, now_s: int) -> None:
    percents = ("1", "50", "80", "100")

    assert set(passed(percents, used, most, DAY, now_s)) <= set(
        passed(percents, used + 1, most, DAY, now_s)
    )
