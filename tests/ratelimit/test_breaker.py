"""The breaker's rules, by a clock that tests move."""

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.store.outage.breaker import Breaker, BreakerState
from tests.fakes import FakeClock


def opened(clock: FakeClock) -> Breaker:
    breaker = Breaker(clock, failures=3, probe_every_s=2.0)
    assert [breaker.failed() for _ in range(3)] == [False, False, True]
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(FakeClock(), failures=3)
    for _ in range(5):
        assert not breaker.failed()
        assert not breaker.failed()
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
    assert not breaker.failed(), "the count begins anew"


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
    assert not breaker.failed()
    assert breaker.take_probe()
    breaker.answered()
    breaker.failed()
    assert breaker.state is BreakerState.HALF_OPEN


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
                breaker.failed()
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
