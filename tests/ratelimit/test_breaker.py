"""The breaker's rules, by a clock that tests move."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.store.outage.breaker import Breaker, BreakerState
from tests.fakes import FakeClock


def fail(breaker: Breaker, clock: FakeClock, ago_s: float = 0.0) -> bool:
    """A call fails now that began some time ago."""
    return breaker.failed(clock.monotonic_s() - ago_s)


def opened(clock: FakeClock) -> Breaker:
    breaker = Breaker(clock, failures=3, probe_every_s=2.0)
    assert [fail(breaker, clock) for _ in range(3)] == [False, False, True]
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    clock = FakeClock()
    breaker = Breaker(clock, failures=3)
    for _ in range(5):
        assert not fail(breaker, clock)
        assert not fail(breaker, clock)
        breaker.answered()
    assert breaker.is_closed


def test_the_first_probe_is_due_after_a_while_and_one_caller_gets_it() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(1.9)
    assert not breaker.take_probe()
    clock.advance(0.1)

    assert [breaker.take_probe() for _ in range(3)] == [True, False, False]
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.is_closed


def test_a_probe_that_is_answered_closes_it() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(2)
    breaker.take_probe()
    breaker.probe_answered()

    assert breaker.is_closed
    assert not fail(breaker, clock), "the count begins anew"


def test_a_probe_that_fails_makes_the_next_one_wait_again() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    clock.advance(2)
    breaker.take_probe()
    breaker.probe_failed()

    assert not breaker.take_probe()
    clock.advance(2)
    assert breaker.take_probe()


def test_calls_that_began_before_it_opened_change_nothing() -> None:
    clock = FakeClock()
    breaker = opened(clock)
    breaker.answered()
    assert not breaker.is_closed
    clock.advance(2)
    assert not fail(breaker, clock)
    assert breaker.take_probe()
    breaker.answered()
    fail(breaker, clock)
    assert breaker.state is BreakerState.HALF_OPEN


def test_calls_that_fail_together_count_as_one() -> None:
    """One stall of 0.5 s with 16 calls in flight."""
    clock = FakeClock()
    breaker = Breaker(clock)
    clock.advance(0.5)
    for _ in range(16):
        clock.advance(0.001)
        assert not fail(breaker, clock, ago_s=0.5)
    assert breaker.is_closed


def test_calls_that_began_before_an_answer_do_not_count() -> None:
    clock = FakeClock()
    breaker = Breaker(clock, failures=1)
    clock.advance(0.5)
    breaker.answered()
    assert not fail(breaker, clock, ago_s=0.4)
    clock.advance(0.5)
    assert fail(breaker, clock, ago_s=0.4)


def test_two_calls_in_a_row_are_enough_after_a_second_of_silence() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    clock.advance(0.5)
    assert not fail(breaker, clock, ago_s=0.5)
    clock.advance(0.4)
    assert not fail(breaker, clock, ago_s=0.4)
    clock.advance(0.1)
    assert fail(breaker, clock, ago_s=0.1)


def test_one_call_is_never_enough_however_long_it_took() -> None:
    clock = FakeClock()
    breaker = Breaker(clock)
    clock.advance(20)
    assert not fail(breaker, clock, ago_s=20)


@given(st.lists(st.sampled_from(["answered", "failed", "wait", "probe", "back", "away"])))
def test_only_an_answered_probe_closes_it_and_there_is_one_probe_at_a_time(
    events: list[str],
) -> None:
    clock = FakeClock()
    breaker = Breaker(clock, failures=3, probe_every_s=2.0)
    probes = 0
    for event in events:
        before = breaker.state
        match event:
            case "answered":
                breaker.answered()
            case "failed":
                fail(breaker, clock)
            case "wait":
                clock.advance(1)
            case "probe":
                probes += breaker.take_probe()
            case "back" if probes:
                breaker.probe_answered()
                probes = 0
                continue
            case "away" if probes:
                breaker.probe_failed()
                probes = 0
        assert probes <= 1
        assert (breaker.state is BreakerState.HALF_OPEN) == (probes == 1)
        assert not (breaker.is_closed and before is not BreakerState.CLOSED)
