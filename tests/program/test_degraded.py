"""What /readyz names as away: from our gauges alone, in one process and over workers."""

import pytest

from headgate.program.admin.degraded import degraded

NOW_S = 1_795_772_000.0


def named(store: float, polled_s: float) -> dict[str, str]:
    gauges = {
        "headgate_store_available": store,
        "headgate_keys_polled_timestamp_seconds": polled_s,
    }
    return degraded(gauges.__getitem__, NOW_S)


def test_nothing_is_away_without_a_database_or_just_after_a_poll() -> None:
    assert named(1, 0) == named(1, NOW_S - 1) == {}


def test_a_store_that_is_away_is_named() -> None:
    assert named(0, 0) == {"store": "Redis does not answer, so each limit's on_outage decides"}


@pytest.mark.parametrize(
    ("polled_s", "text"),
    [
        (NOW_S - 120, "PostgreSQL was last read at 2026-11-27T09:31:20Z, so later changes wait"),
        (1, "PostgreSQL has not answered yet, so keys that it holds get 503"),
    ],
)
def test_a_database_that_is_away_is_named(polled_s: float, text: str) -> None:
    assert named(1, polled_s) == {"database": text}
