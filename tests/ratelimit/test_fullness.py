"""How full a tenant's limits are can be read, and what is over is empty."""

from prometheus_client import CollectorRegistry

from headgate.core.policy import CountedRequests, Each, Limit, Per, Slots, Windowed
from ratelimit.answers import LimitStatus
from ratelimit.fullness import Fullness
from tests.fakes import FakeClock

CLOCK_S = 1000.0
MINUTE = Limit(id="requests/minute", limit=100, shape=Windowed(Per.MINUTE, CountedRequests()))
SLOTS = Limit(id="slots", limit=4, shape=Slots())
EACH = Limit(
    id="each", limit=100, shape=Windowed(Per.MINUTE, CountedRequests()), each=frozenset({Each.USER})
)


def read(fullness: Fullness) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(fullness)
    return {
        sample.labels["limit"]: sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_a_limit_shows_its_used_part_until_its_window_ends() -> None:
    clock = FakeClock(CLOCK_S)
    fullness = Fullness(clock.now_s)
    fullness.note("acme", [LimitStatus(MINUTE, 25, CLOCK_S + 30)])
    assert read(fullness) == {"requests/minute": 0.75}
    clock.advance(30)
    assert read(fullness) == {"requests/minute": 0}


def test_a_limit_with_a_counter_for_each_user_is_left_out() -> None:
    fullness = Fullness(FakeClock(CLOCK_S).now_s)
    fullness.note("acme", [LimitStatus(EACH, 25, CLOCK_S + 30)])
    assert read(fullness) == {}


def test_a_settlement_frees_slots_and_says_nothing_of_windows() -> None:
    fullness = Fullness(FakeClock(CLOCK_S).now_s)
    fullness.note("acme", [LimitStatus(MINUTE, 25, CLOCK_S + 30), LimitStatus(SLOTS, 1, None)])
    fullness.note_slots(
        "acme", [LimitStatus(MINUTE, 99, CLOCK_S + 30), LimitStatus(SLOTS, 2, None)]
    )
    assert read(fullness) == {"requests/minute": 0.75, "slots": 0.5}
