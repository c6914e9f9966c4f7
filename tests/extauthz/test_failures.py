"""The limit of requests without a known key for each address."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.failures import MAX_ADDRESSES, FailureLimit

CLIENT, OTHER = "192.0.2.1", "192.0.2.2"


def let_through(limit: FailureLimit, address: str, now_s: float, times: int) -> int:
    """The number of these simultaneous failures that are within the limit."""
    return sum(limit.count(address, now_s) is None for _ in range(times))


def test_as_many_failures_as_the_limit_says_are_let_through_at_once() -> None:
    assert let_through(FailureLimit(30), CLIENT, 0, 100) == 30


def test_room_comes_back_evenly() -> None:
    """30 a minute is one every two seconds."""
    limit = FailureLimit(30)
    let_through(limit, CLIENT, 0, 30)

    assert limit.count(CLIENT, 0) == pytest.approx(2)
    assert limit.count(CLIENT, 1.5) == pytest.approx(0.5)
    assert let_through(limit, CLIENT, 2, 10) == 1
    assert let_through(limit, CLIENT, 62, 100) == 30


def test_failures_beyond_the_limit_do_not_put_off_its_end() -> None:
    limit = FailureLimit(30)
    let_through(limit, CLIENT, 0, 1000)

    assert limit.count(CLIENT, 2) is None


def test_addresses_do_not_pay_for_each_other() -> None:
    limit = FailureLimit(5)
    let_through(limit, CLIENT, 0, 100)

    assert let_through(limit, OTHER, 0, 100) == 5


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", "/run/some.sock"),
    ],
)
def test_addresses_of_one_client_are_one(address: str, other: str) -> None:
    """An IPv6 client has a whole /64 to choose from."""
    limit = FailureLimit(5)
    let_through(limit, address, 0, 5)

    assert limit.count(other, 0) is not None


def test_neighbouring_ipv6_networks_are_two_clients() -> None:
    limit = FailureLimit(5)
    let_through(limit, "2001:db8:0:1::1", 0, 5)

    assert limit.count("2001:db8:0:2::1", 0) is None


def test_memory_and_failures_let_through_are_bounded_for_all_addresses_together() -> None:
    """Beyond `max_addresses` all new addresses share one count."""
    limit = FailureLimit(5, max_addresses=100)
    passed = sum(
        let_through(limit, f"10.0.{number // 250}.{number % 250}", 0, 10) for number in range(1000)
    )

    assert len(limit) == 101
    assert passed == 101 * 5
    assert limit.count(CLIENT, 61) is None
    assert len(limit) == 1


def test_the_table_is_of_some_megabytes_at_most() -> None:
    assert MAX_ADDRESSES <= 10_000


CALLS = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30)), max_size=200)
"""Failures: the client, and the pause before it in seconds."""
FULL = [(0, 0.0), (1, 0.0), (2, 0.0)]
"""As many addresses as have a bucket of their own in these tests."""


def passed(limit: FailureLimit, calls: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The failures that are within the limit: the client, and the time in seconds."""
    now_s, within = 0.0, []
    for client, pause_s in calls:
        now_s += pause_s
        if limit.count(f"192.0.2.{client}", now_s) is None:
            within.append((client, now_s))
    return within


def most_in_a_minute(times_s: list[float]) -> int:
    return max(
        (sum(start_s <= time_s < start_s + 60 for time_s in times_s) for start_s in times_s),
        default=0,
    )


@given(CALLS, st.integers(1, 10))
def test_no_minute_lets_more_of_an_address_through_than_twice_the_limit(
    calls: list[tuple[int, float]], per_minute: int
) -> None:
    """The full bucket at its beginning, and the refill within it."""
    within = passed(FailureLimit(per_minute), calls)

    for client in range(6):
        assert most_in_a_minute([at_s for who, at_s in within if who == client]) <= 2 * per_minute


@given(CALLS, st.integers(1, 10))
@example([*FULL, (3, 10), (3, 0), (0, 5), (1, 0), (2, 0), (3, 25), (3, 21), (3, 0)], 2)
def test_no_minute_lets_more_of_all_addresses_through_than_twice_their_buckets(
    calls: list[tuple[int, float]], per_minute: int
) -> None:
    """An address beyond the maximum may get a bucket of its own while the shared one still counts
    it. So the bound is one of all buckets, and not of each address."""
    limit = FailureLimit(per_minute, max_addresses=3)
    within = passed(limit, calls)

    assert len(limit) <= 4
    assert most_in_a_minute([at_s for _, at_s in within]) <= 4 * 2 * per_minute


@given(CALLS, st.integers(1, 10))
def test_the_wait_is_at_most_that_for_one_free_place(
    calls: list[tuple[int, float]], per_minute: int
) -> None:
    limit, now_s = FailureLimit(per_minute, max_addresses=3), 0.0
    for client, pause_s in calls:
        now_s += pause_s
        wait_s = limit.count(f"192.0.2.{client}", now_s)
        assert wait_s is None or 0 < wait_s <= 60 / per_minute + 1e-6
