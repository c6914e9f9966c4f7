"""A request leaves its version while that is down or full, and comes back with it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from accesslog.reached import Reached
from extproc.failover import Move
from extproc.types import Placing
from headgate.core.failover import Failover
from headgate.placement.loads import PodLoads
from headgate.placement.outage_exchange import OutageExchange, RedisOutages
from headgate.placement.outages import HOLD_S, Outages
from headgate.placement.places import BoundedPlaces
from headgate.placement.spares import Spares
from tests.fakes import FakeClock
from tests.redis_server import RedisServer, running_redis

BASE, OWN, SPARE = "llama", "main", "spot"
OWN_PODS, SPARE_PODS = ("10.0.0.1:8000", "10.0.0.2:8000"), ("10.1.0.1:8000",)
SLOTS, QUEUE = 2, 1


@dataclass
class Desk:
    """The decisions of one replica about a model with two pods, and one spare pod."""

    clock: FakeClock = field(default_factory=FakeClock)
    failover: Failover | None = field(default_factory=lambda: Failover(SPARE, QUEUE))

    def __post_init__(self) -> None:
        self.outages = Outages(self.clock.now_s)
        self.places = BoundedPlaces(lambda pods: pods, PodLoads(self.clock.now_s))
        self.spares = Spares(self.places, self.outages, lambda _: self.failover)

    def move(self) -> Move | None:
        failover = self.failover or Failover(SPARE)
        return self.spares.move((BASE, OWN), failover, placing())

    def begin(self, version: str, requests: int = 1) -> None:
        """Requests begin on the pods of this version."""
        for _ in range(requests):
            self.places.hosts(placing().of(version), placing())

    def told(self, version: str, *, answered: bool, began_s: float | None = None) -> None:
        began_s = self.clock.now_s() if began_s is None else began_s
        self.spares.told(Reached(BASE, version, began_s, answered))


def placing() -> Placing:
    return Placing(OWN_PODS, {SPARE: SPARE_PODS}, "", SLOTS)


def test_requests_stay_while_their_version_answers() -> None:
    desk = Desk()
    desk.told(OWN, answered=True)
    assert desk.move() is None


def test_requests_leave_a_version_that_was_not_reached_until_it_answers() -> None:
    desk = Desk()
    desk.told(OWN, answered=False)
    assert [desk.move() for _ in range(3)] == [Move.DOWN] * 3
    desk.clock.advance(1.0)
    desk.told(OWN, answered=True)
    assert desk.move() is None


def test_in_each_hold_one_request_tries_a_version_that_is_down() -> None:
    desk = Desk()
    desk.told(OWN, answered=False)
    for _ in range(3):
        desk.clock.advance(HOLD_S)
        desk.told(OWN, answered=False)
        assert [desk.move() for _ in range(4)] == [None, Move.DOWN, Move.DOWN, Move.DOWN]


def test_an_answer_to_a_request_from_before_the_outage_does_not_end_it() -> None:
    """A long stream may end well although no new request gets through."""
    desk = Desk()
    began_s = desk.clock.now_s()
    desk.clock.advance(5.0)
    desk.told(OWN, answered=False)
    desk.told(OWN, answered=True, began_s=began_s)
    assert desk.move() is Move.DOWN


def test_requests_leave_a_version_whose_queue_is_over_the_bound() -> None:
    desk = Desk()
    desk.begin(OWN, len(OWN_PODS) * (SLOTS + QUEUE) - 1)
    assert desk.move() is None
    desk.begin(OWN)
    assert desk.move() is Move.FULL
    desk.places.ended(OWN_PODS[0], desk.clock.now_s())
    assert desk.move() is None


@pytest.mark.parametrize("why", ["down", "full"])
def test_no_request_goes_to_a_spare_version_that_cannot_help(why: str) -> None:
    desk = Desk()
    desk.begin(OWN, 100)
    if why == "down":
        desk.told(SPARE, answered=False)
    else:
        desk.begin(SPARE, SLOTS + QUEUE)
    assert desk.move() is None
    desk.told(OWN, answered=False)
    assert desk.move() is (None if why == "down" else Move.DOWN)


def test_a_conversation_that_a_pod_has_stored_waits_in_its_queue() -> None:
    desk = Desk()
    desk.begin(OWN, 100)
    stored = Placing(OWN_PODS, {SPARE: SPARE_PODS}, "key", None)
    assert desk.spares.move((BASE, OWN), Failover(SPARE, 0), stored) is None


def test_without_a_bound_no_queue_is_too_long() -> None:
    desk = Desk(failover=Failover(SPARE))
    desk.begin(OWN, 100)
    assert desk.move() is None


def test_a_model_without_a_spare_version_has_no_outage() -> None:
    desk = Desk(failover=None)
    desk.told(OWN, answered=False)
    assert not desk.outages.is_known((BASE, OWN))


@given(st.lists(st.sampled_from(["fail", "answer", "ask", "wait"]), max_size=40))
def test_a_request_leaves_only_for_a_failure_that_no_answer_has_followed(
    steps: list[str],
) -> None:
    desk = Desk(failover=Failover(SPARE))
    is_down = False
    for step in steps:
        desk.clock.advance(0.5)
        match step:
            case "fail":
                desk.told(OWN, answered=False)
                is_down = True
            case "answer":
                desk.told(OWN, answered=True)
                is_down = False
            case "wait":
                desk.clock.advance(HOLD_S)
            case _:
                assert desk.move() in ({None, Move.DOWN} if is_down else {None})


@dataclass
class Replicas:
    """Two replicas that share a Redis."""

    desks: list[Desk]
    exchanges: list[OutageExchange]

    async def exchange(self) -> None:
        for desk in self.desks:
            desk.move()
        for _ in range(2):
            for each in self.exchanges:
                await each.exchange()
            for desk in self.desks:
                desk.outages.is_used = True


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest_asyncio.fixture
async def replicas(redis: RedisServer) -> AsyncIterator[Replicas]:
    clock = FakeClock()
    desks = [Desk(clock), Desk(clock)]
    shared = [RedisOutages(redis.url, 5.0) for _ in desks]
    pairs = zip(desks, shared, strict=True)
    yield Replicas(desks, [OutageExchange(desk.outages, each, clock) for desk, each in pairs])
    for each in shared:
        await each.close()


async def test_one_replica_hears_of_an_outage_and_all_know_it(replicas: Replicas) -> None:
    first, second = replicas.desks
    first.told(OWN, answered=False)
    await replicas.exchange()
    assert [desk.move() for desk in (first, second)] == [Move.DOWN] * 2

    second.clock.advance(1.0)
    second.told(OWN, answered=True)
    await replicas.exchange()
    assert [desk.move() for desk in (first, second)] == [None, None]


async def test_an_idle_replica_asks_redis_nothing() -> None:
    class Unreachable(RedisOutages):
        def __init__(self) -> None:
            """It has no address."""

        async def share(self, told: object) -> dict[tuple[str, str], float]:
            raise AssertionError(f"asked with {told}")

    desk = Desk()
    exchange = OutageExchange(desk.outages, Unreachable(), desk.clock)
    await exchange.exchange()


async def test_while_redis_is_away_each_replica_goes_on_by_itself(redis: RedisServer) -> None:
    desk, away = Desk(), RedisOutages("redis://127.0.0.1:1", 1.0)
    exchange = OutageExchange(desk.outages, away, desk.clock)
    desk.told(OWN, answered=False)
    await exchange.exchange()
    assert desk.move() is Move.DOWN
    await away.close()

    shared, other = RedisOutages(redis.url, 5.0), Outages(desk.clock.now_s)
    await OutageExchange(desk.outages, shared, desk.clock).exchange()
    other.failed((BASE, SPARE))
    await OutageExchange(other, shared, desk.clock).exchange()
    assert other.is_known((BASE, OWN)), "it tells later what it could not tell"
    await shared.close()
