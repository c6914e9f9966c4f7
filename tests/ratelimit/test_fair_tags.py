"""The tags by themselves: fair within one request's size, and nobody waits for ever."""

from collections import deque
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.fair.tags import (
    UNITS_PER_TOKEN,
    FairDemand,
    FairStart,
    Finishes,
    Rates,
    VirtualTimes,
)
from tests.fakes import FakeClock

QUEUE = "llama-8b"
WEIGHTS = st.integers(1, 100)
SIZES = st.lists(st.integers(1, 5000), min_size=1, max_size=30)


def demand(tokens: int, weight: int, virtual_time: int = 0) -> FairDemand:
    """A request with a prompt of this size."""
    rates = Rates.of_weight(weight)
    return FairDemand(
        queue=QUEUE, work=rates.work(tokens, 0), rates=rates, virtual_time=virtual_time
    )


def served(backlogs: Mapping[str, Sequence[int]], weights: Mapping[str, int]) -> list[list[int]]:
    """The work that each tenant has got after each request, of one vLLM that takes them in turn.

    It ends when one tenant has none left. All of them submit everything at the start.
    """
    finishes = Finishes()
    waiting = {
        tenant: deque(
            (finishes.take(tenant, asked).tag, asked.work)
            for asked in (demand(size, weights[tenant]) for size in sizes)
        )
        for tenant, sizes in backlogs.items()
    }
    got = dict.fromkeys(backlogs, 0)
    history = []
    while all(waiting.values()):
        first = min(waiting, key=lambda tenant: waiting[tenant][0][0])
        got[first] += waiting[first].popleft()[1]
        history.append([*got.values()])
    return history


@given(SIZES, SIZES, WEIGHTS, WEIGHTS)
def test_two_tenants_that_wait_differ_by_one_request_of_each_at_most(
    ones: list[int], twos: list[int], weight: int, other: int
) -> None:
    weights = {"a": weight, "b": other}
    largest = {
        tenant: max(demand(size, weights[tenant]).work for size in sizes)
        for tenant, sizes in (("a", ones), ("b", twos))
    }

    for a, b in served({"a": ones, "b": twos}, weights):
        assert abs(a - b) <= largest["a"] + largest["b"]


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(0, 1000), st.integers(1, 100))
def test_no_request_waits_longer_than_the_floor_needs_to_reach_its_start(
    ahead: int, newcomers_tokens: int, floor: int, seconds: int
) -> None:
    clock = FakeClock(0.0)
    times, finishes = VirtualTimes(clock.monotonic_s), Finishes()
    finishes.take("old", demand(ahead, 1, times.of(QUEUE, floor)))
    start = finishes.take("old", demand(1, 1, times.of(QUEUE, floor))).tag
    clock.advance(seconds)

    newcomer = finishes.take("new", demand(newcomers_tokens, 1, times.of(QUEUE, floor)))

    assert newcomer.tag == seconds * floor * UNITS_PER_TOKEN
    assert (newcomer.tag >= start) == (seconds * floor >= ahead)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000), WEIGHTS)
def test_what_was_estimated_is_replaced_by_what_was_used(
    estimated: int, prompt: int, output: int, weight: int
) -> None:
    finishes, asked = Finishes(), demand(estimated, weight)
    finishes.take("a", asked)

    finishes.correct("a", asked, prompt, output)

    assert finishes.take("a", demand(1, weight)).tag == asked.rates.work(prompt, output)


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_a_tenant_that_comes_back_gets_nothing_for_the_time_away(finish: int, now: int) -> None:
    finishes = Finishes()
    rates = Rates.of_weight(1)
    finishes.take("a", FairDemand(queue=QUEUE, work=finish, rates=rates, virtual_time=0))

    assert finishes.take("a", demand(1, 1, now)).tag == max(finish, now)


def test_twice_the_weight_is_half_the_work_and_an_output_token_is_four_of_a_prompt() -> None:
    one, two = Rates.of_weight(1), Rates.of_weight(2)

    assert one.work(1000, 0) == 2 * two.work(1000, 0) == 1000 * UNITS_PER_TOKEN
    assert one.work(0, 1000) == 4 * one.work(1000, 0)


def test_the_virtual_time_is_the_largest_start_that_was_served_anywhere() -> None:
    times = VirtualTimes(FakeClock(0.0).monotonic_s)

    times.started(FairStart(QUEUE, 70))
    times.started(FairStart(QUEUE, 50))
    times.learn({QUEUE: 90, "other": 5})

    assert (times.of(QUEUE, 20), times.known()) == (90, {QUEUE: 90, "other": 5})


def test_the_floor_moves_a_virtual_time_that_other_replicas_moved_too() -> None:
    clock = FakeClock(0.0)
    times = VirtualTimes(clock.monotonic_s)
    assert times.of(QUEUE, 20) == 0
    clock.advance(1.0)
    times.learn({QUEUE: 1000})
    clock.advance(1.0)

    assert times.of(QUEUE, 20) >= 1000 + 20 * UNITS_PER_TOKEN


def test_a_process_forgets_the_tenants_that_it_met_longest_ago() -> None:
    finishes = Finishes()
    for number in range(100_001):
        finishes.take(f"{number}", demand(10, 1))

    assert finishes.take("100000", demand(1, 1)).tag > 0
    assert finishes.take("0", demand(1, 1)).tag == 0
