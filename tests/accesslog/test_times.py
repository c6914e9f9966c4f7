"""The trace and the times of a request come from texts of clients and clocks of machines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accesslog.times import token_interval, trace_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {
    f"00-{TRACE}-00f067aa0ba902b7-01": TRACE,
    f"01-{TRACE}-00f067aa0ba902b7-00-later": TRACE,
    f"00-{TRACE.upper()}-00f067aa0ba902b7-01": None,
    f"00-{'0' * 32}-00f067aa0ba902b7-01": None,
    f"00-{TRACE}-00f067aa0ba902b7": None,
    f"00-{TRACE}-00f067aa0ba902b7-01\n": None,
    "": None,
}


@pytest.mark.parametrize(("header", "expected"), HEADERS.items())
def test_a_trace_id_is_that_of_a_well_formed_trace_context(
    header: str, expected: str | None
) -> None:
    assert trace_id(header) == expected


@given(st.text())
def test_no_text_of_a_client_becomes_a_trace_id_of_another_form(header: str) -> None:
    found = trace_id(header)
    assert found is None or len(found) == 32


@pytest.mark.parametrize(
    ("ttft_s", "tokens", "expected"),
    [(0.1, 10, 0.1), (None, 10, None), (0.1, 1, None), (0.1, None, None), (2.0, 3, 0.0)],
)
def test_the_mean_time_between_tokens_needs_a_first_and_a_second(
    ttft_s: float | None, tokens: int | None, expected: float | None
) -> None:
    assert token_interval(ttft_s, 1.0, tokens) == expected
