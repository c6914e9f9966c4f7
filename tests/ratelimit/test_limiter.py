"""The limiter's decisions and its memory, on the store of one process."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from headgate.core.policy import CompiledPolicy, Count, Each, Limit, Per
from headgate.core.settlement import Estimate, Source, Usage
from ratelimit.answers import Admitted, LimitStatus, Reason, Refused
from ratelimit.demand import Subject, claims_of
from ratelimit.limiter import Limiter, SettlementResult
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import (
    Reservation,
    Reserved,
    Settled,
    SettleOutcome,
    Spent,
    StoreAwayError,
    StoreError,
)
from tests.fakes import FakeClock
from tests.ratelimit.builders import (
    NOW_S,
    admitted,
    limit,
    new_name,
    peek,
    policy_with,
    refused,
    request,
)
from tests.ratelimit.outages import new_replica

ALICE = Subject("demo", "alice", "k", "tiny")
ESTIMATE = Estimate(tokens=500, prompt=100)
USED = Usage(status=200, prompt=120, completion=30, complete=True)
FAILED = Usage(status=503)
REPLAYED = Refused(Reason.REPLAYED, None, 1, ())


class CountingStore(MemoryStore):
    """Counts the round trips that a shared store would cost; fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.trips: list[str] = []
        self.fails = False

    def _trip(self, operation: str) -> None:
        self.trips.append(operation)
        if self.fails:
            raise StoreError("away")

    async def reserve(self, reservation: Reservation) -> Reserved:
        self._trip("reserve")
        return await super().reserve(reservation)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        self._trip("settle")
        return await super().settle(reservation, tenant, spent, now_s)


class Desk:
    """A limiter with its surroundings in reach."""

    def __init__(self, *limits: Limit, store: CountingStore | None = None) -> None:
        self.store = store or CountingStore()
        self.clock = FakeClock(NOW_S)
        self.policy: CompiledPolicy = policy_with(*limits)
        self.limiter = Limiter(self.store, lambda: self.policy, self.clock, remembered=100)

    async def ask(
        self, tokens: int = 500, reservation: str = "", user: str = "alice", tenant: str = "demo"
    ) -> Admitted | Refused:
        name = reservation or new_name("r")
        return await self.limiter.reserve(request(name, tokens, tenant=tenant, user=user))

    async def settle(
        self, reservation: str, usage: Usage = USED, tenant: str = "demo"
    ) -> SettlementResult:
        return await self.limiter.settle(reservation, tenant, usage, ESTIMATE)

    def counter(self) -> str:
        """The key of the one counter that alice meets."""
        [claim] = claims_of(self.policy.tenants["demo"], ALICE, self.clock.now_s())
        return claim.key

    async def remaining(self) -> list[int]:
        """The rest of alice's limits in the store: of each window, then of the slots."""
        claims = claims_of(self.policy.tenants["demo"], ALICE, self.clock.now_s())
        windows = [claim for claim in claims if claim.window]
        slots = [claim for claim in claims if not claim.window]
        used = await peek(
            self.store, "demo", [c.key for c in windows], [c.key for c in slots], self.clock.now_s()
        )
        both = zip(windows + slots, used, strict=True)
        return [claim.limit.limit - count for claim, count in both]


def remaining(limits: Sequence[LimitStatus]) -> list[int]:
    return [status.remaining for status in limits]


async def test_an_admitted_request_learns_what_is_left_of_each_limit() -> None:
    requests, tokens = limit(10), limit(2000, Count.TOKENS, per=Per.DAY)
    slots = limit(3, Count.CONCURRENT)

    answer = await Desk(slots, requests, tokens).ask()

    assert isinstance(answer, Admitted)
    by_limit = {status.id: (status.remaining, status.resets_at_s) for status in answer.limits}
    assert by_limit == {
        requests.id: (9, int(NOW_S) + 60),
        tokens.id: (1500, int(NOW_S) + 57_600),
        slots.id: (2, None),
    }


async def test_settling_charges_the_actual_tokens() -> None:
    desk = Desk(limit(2000, Count.TOKENS), limit(10), limit(2, Count.CONCURRENT))
    await desk.ask(reservation="it")

    assert await desk.settle("it") is Source.USAGE
    assert remaining(desk.limiter.limits_of("it")) == [1850, 9, 2]
    assert await desk.remaining() == [1850, 9, 2]


async def test_an_upstream_error_gives_everything_back() -> None:
    desk = Desk(limit(2000, Count.TOKENS), limit(10))
    await desk.ask(reservation="it")

    assert await desk.settle("it", FAILED) is Source.REFUND
    assert remaining(desk.limiter.limits_of("it")) == [2000, 10]


async def test_the_second_settlement_in_a_process_asks_no_store() -> None:
    desk = Desk(limit(10))
    await desk.ask(reservation="it")
    await desk.settle("it")

    assert await desk.settle("it") is SettleOutcome.DUPLICATE
    assert desk.store.trips == ["reserve", "settle"]


async def test_settling_a_refused_request_asks_no_store_and_changes_nothing() -> None:
    """Envoy sends the settlement of a 429 too."""
    desk = Desk(limit(1))
    await desk.ask()
    await desk.ask(reservation="refused")

    assert await desk.settle("refused", Usage()) is SettleOutcome.UNKNOWN
    assert desk.store.trips == ["reserve", "reserve"]
    assert remaining(desk.limiter.limits_of("refused")) == [0]


async def test_a_refused_request_may_ask_again() -> None:
    desk = Desk(limit(1))
    await desk.ask()
    assert isinstance(await desk.ask(reservation="again"), Refused)
    desk.clock.advance(60)

    assert isinstance(await desk.ask(reservation="again"), Admitted)
    assert await desk.settle("again") is Source.USAGE


async def test_another_process_settles_what_this_one_reserved() -> None:
    store = CountingStore()
    here, there = (Desk(limit(2000, Count.TOKENS), store=store) for _ in range(2))
    await here.ask(reservation="it")

    assert await there.settle("it") is Source.USAGE
    assert await here.settle("it") is SettleOutcome.DUPLICATE
    assert await here.remaining() == [1850]


async def test_settling_what_nobody_reserved_changes_nothing_and_is_not_remembered() -> None:
    """The settlement of an aborted request may overtake its reserve; the access log comes later."""
    desk = Desk(limit(2000, Count.TOKENS))

    assert await desk.settle("early") is SettleOutcome.UNKNOWN
    await desk.ask(reservation="early")
    assert await desk.settle("early") is Source.USAGE


async def test_a_replayed_call_of_a_settled_request_is_refused() -> None:
    desk = Desk(limit(2000, Count.TOKENS))
    await desk.ask(reservation="it")
    await desk.settle("it")

    answer = await desk.ask(reservation="it")

    assert answer == Refused(Reason.REPLAYED, None, 1, ())
    assert remaining(desk.limiter.limits_of("it")) == [1850]


async def test_a_tenant_that_the_policy_does_not_know_is_refused_without_the_store() -> None:
    desk = Desk(limit(10))

    assert await desk.ask(tenant="gone") == Refused(Reason.UNKNOWN_TENANT, None, 1, ())
    assert desk.store.trips == []


async def test_without_a_limit_neither_reserve_nor_settle_asks_the_store() -> None:
    desk = Desk(limit(1, users=("bob",)))

    assert await desk.ask(reservation="free") == Admitted(())
    assert await desk.settle("free") is Source.USAGE
    assert await desk.settle("free") is SettleOutcome.DUPLICATE
    assert desk.store.trips == []


async def test_a_limit_that_is_lifted_in_between_is_settled_all_the_same() -> None:
    desk = Desk(limit(2000, Count.TOKENS))
    await desk.ask(reservation="it")
    before, desk.policy = desk.policy, policy_with()

    await desk.ask(reservation="it")  # the proxy asks again
    assert await desk.settle("it") is Source.USAGE

    desk.policy = before
    assert await desk.remaining() == [1850]


async def test_one_tenants_settlement_is_not_taken_for_anothers() -> None:
    desk = Desk(limit(2000, Count.TOKENS))
    await desk.ask(reservation="it")
    await desk.settle("it", tenant="other")

    assert await desk.settle("it") is Source.USAGE


async def test_an_estimate_above_a_small_limit_is_let_in_once() -> None:
    desk = Desk(limit(100, Count.TOKENS))
    assert isinstance(await desk.ask(tokens=10**9), Admitted)
    assert isinstance(await desk.ask(tokens=1), Refused)


@pytest.mark.parametrize("tokens", [0, 1, 2**32 - 1, 2**64 - 1])
async def test_a_limit_of_zero_lets_nothing_in(tokens: int) -> None:
    assert isinstance(await Desk(limit(0, Count.TOKENS)).ask(tokens=tokens), Refused)


async def test_a_used_up_limit_refuses_what_is_estimated_at_nothing() -> None:
    desk = Desk(limit(100, Count.TOKENS))
    await desk.ask(tokens=100)
    assert isinstance(await desk.ask(tokens=0), Refused)


async def test_of_several_limits_hit_the_one_that_resets_last_is_named() -> None:
    day, minute = limit(1, per=Per.DAY), limit(1, per=Per.MINUTE)
    slots = limit(1, Count.CONCURRENT)
    desk = Desk(minute, slots, day)
    await desk.ask()
    desk.clock.advance(0.5)

    refused = await desk.ask()

    assert isinstance(refused, Refused)
    assert refused.hit is not None
    assert refused.hit.rule == day
    assert refused.retry_after_s == 57_600
    assert len(refused.limits) == 3


@pytest.mark.parametrize(("late_s", "retry_after_s"), [(0.5, 60), (59.5, 1), (59.999, 1), (0, 60)])
async def test_waiting_for_retry_after_is_enough(late_s: float, retry_after_s: int) -> None:
    desk = Desk(limit(1))
    desk.clock.advance(late_s)
    await desk.ask()

    refused = await desk.ask()

    assert isinstance(refused, Refused)
    assert refused.retry_after_s == retry_after_s
    desk.clock.advance(refused.retry_after_s)
    assert isinstance(await desk.ask(), Admitted)


async def test_a_busy_slot_may_be_free_in_a_second() -> None:
    desk = Desk(limit(1, Count.CONCURRENT, each=(Each.USER,)))
    await desk.ask(reservation="first")

    refused = await desk.ask()
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == 1
    assert isinstance(await desk.ask(user="bob"), Admitted)
    await desk.settle("first")
    assert isinstance(await desk.ask(), Admitted)


async def test_a_store_that_fails_is_heard_and_the_settlement_can_come_again() -> None:
    desk = Desk(limit(2000, Count.TOKENS))
    await desk.ask(reservation="it")
    desk.store.fails = True

    with pytest.raises(StoreError):
        await desk.settle("it")
    with pytest.raises(StoreError):
        await desk.ask()

    desk.store.fails = False
    assert await desk.settle("it") is Source.USAGE


async def test_only_the_last_reservations_are_remembered() -> None:
    desk = Desk(limit(10_000))
    for number in range(300):
        await desk.ask(reservation=f"n{number}")

    assert desk.limiter.limits_of("n199") == ()
    assert remaining(desk.limiter.limits_of("n200")) == [10_000 - 201]
    assert await desk.settle("n0") is Source.USAGE


async def test_two_who_settle_at_once_ask_the_store_once() -> None:
    """The proxy's call is still on its way to the store when the access log's comes."""

    class SlowStore(CountingStore):
        async def settle(
            self, reservation: str, tenant: str, spent: Spent, now_s: float
        ) -> Settled:
            await asyncio.sleep(0)
            return await super().settle(reservation, tenant, spent, now_s)

    desk = Desk(limit(1000, Count.TOKENS), store=SlowStore())
    await desk.ask(reservation="it")
    outcomes = await asyncio.gather(*(desk.settle("it") for _ in range(3)))

    assert outcomes == [Source.USAGE, SettleOutcome.DUPLICATE, SettleOutcome.DUPLICATE]
    assert desk.store.trips == ["reserve", "settle"]


async def test_who_waited_for_a_settlement_that_failed_settles_itself() -> None:
    class FailsOnce(CountingStore):
        async def settle(
            self, reservation: str, tenant: str, spent: Spent, now_s: float
        ) -> Settled:
            await asyncio.sleep(0)
            self.fails = "settle" not in self.trips
            return await super().settle(reservation, tenant, spent, now_s)

    desk = Desk(limit(1000, Count.TOKENS), store=FailsOnce())
    await desk.ask(reservation="it")
    outcomes = await asyncio.gather(desk.settle("it"), desk.settle("it"), return_exceptions=True)

    assert isinstance(outcomes[0], StoreError)
    assert outcomes[1] is Source.USAGE


async def test_a_shadow_limit_refuses_nobody_and_says_whom_it_would_have() -> None:
    shadow = limit(1, shadow=True)
    desk = Desk(shadow)

    answers = [await desk.ask() for _ in range(3)]

    assert answers == [Admitted(()), Admitted((), (shadow,)), Admitted((), (shadow,))]
    assert await desk.remaining() == [-2]


async def test_clients_see_nothing_of_a_shadow_limit() -> None:
    force, tokens = limit(2, each=(Each.USER,)), limit(10, Count.TOKENS, shadow=True)
    desk = Desk(tokens, force, limit(1, Count.CONCURRENT, shadow=True))
    await desk.ask(reservation="it")
    admitted = await desk.ask()
    refused = await desk.ask()

    assert isinstance(admitted, Admitted)
    assert [status.id for status in admitted.limits] == [force.id]
    assert isinstance(refused, Refused)
    assert refused.hit is not None
    assert (refused.hit.id, [status.id for status in refused.limits]) == (force.id, [force.id])
    assert await desk.settle("it") is Source.USAGE
    assert [status.id for status in desk.limiter.limits_of("it")] == [force.id]


async def test_a_shadow_limit_counts_beside_the_one_in_force_that_it_may_replace() -> None:
    desk = Desk(limit(4), limit(2, shadow=True))

    answers = [await desk.ask() for _ in range(5)]

    assert [isinstance(answer, Admitted) for answer in answers] == [True] * 4 + [False]
    assert [bool(answer.exceeded) for answer in answers if isinstance(answer, Admitted)] == [
        False,
        False,
        True,
        True,
    ]


class AwayStore(CountingStore):
    """Answers a reserve as a store does that is away."""

    answer: Reserved | None = None

    async def reserve(self, reservation: Reservation) -> Reserved:
        self._trip("reserve")
        if self.answer is None:
            raise StoreAwayError("away")
        return self.answer

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        self._trip("settle")
        return Settled(SettleOutcome.DEFERRED, {})


async def test_what_a_store_that_is_away_closed_is_not_settled() -> None:
    desk = Desk(limit(10), store=AwayStore())
    with pytest.raises(StoreAwayError):
        await desk.ask(reservation="it")

    assert await desk.settle("it", FAILED) is SettleOutcome.UNKNOWN
    assert desk.store.trips == ["reserve"]


@pytest.mark.parametrize(("held", "trips"), [(False, 1), (True, 2)])
async def test_what_is_held_nowhere_needs_no_settlement(held: bool, trips: int) -> None:
    store = AwayStore()
    desk = Desk(limit(10), store=store)
    store.answer = replace(admitted(**{desk.counter(): 0}), degraded=True, held=held)
    assert isinstance(await desk.ask(reservation="it"), Admitted)

    settled = await desk.settle("it")

    assert settled is (SettleOutcome.DEFERRED if held else Source.USAGE)
    assert await desk.settle("it") is SettleOutcome.DUPLICATE
    assert len(store.trips) == trips


async def test_after_a_refusal_without_the_store_clients_come_back_soon() -> None:
    """The outage may be over long before the window is."""
    store = AwayStore()
    desk = Desk(limit(10, per=Per.DAY), store=store)
    counter = desk.counter()
    store.answer = replace(refused(counter, **{counter: 10}), degraded=True)

    answer = await desk.ask()

    assert isinstance(answer, Refused)
    assert answer.retry_after_s == 5


async def test_a_tenant_with_shadow_limits_alone_is_let_in_while_the_store_is_away() -> None:
    replica = await new_replica()
    await replica.lose_the_store()
    policy = policy_with(limit(1, shadow=True), limit(1, Count.CONCURRENT, shadow=True))
    limiter = Limiter(replica.store, lambda: policy, replica.clock)
    asked = [request(new_name("r"), 5) for _ in range(3)]

    assert [await limiter.reserve(each) for each in asked] == [Admitted((), holds_slot=True)] * 3
    outcomes = [await limiter.settle(each.reservation, "demo", USED, ESTIMATE) for each in asked]
    assert outcomes == [Source.USAGE] * 3


class SlowStore(CountingStore):
    """Takes a reservation at once, and answers once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    async def reserve(self, reservation: Reservation) -> Reserved:
        reserved = await super().reserve(reservation)
        await self.answers.wait()
        return reserved


async def test_what_nobody_heard_of_is_given_back_once_and_never_reserved_again() -> None:
    desk = Desk(limit(10), limit(3, Count.CONCURRENT))
    await desk.ask(reservation="r")

    first, second = await desk.limiter.give_back("r"), await desk.limiter.give_back("r")

    assert (first, second) == (Source.REFUND, SettleOutcome.DUPLICATE)
    assert await desk.remaining() == [10, 3]
    assert await desk.ask(reservation="r") == REPLAYED


async def test_what_was_charged_is_not_given_back() -> None:
    desk = Desk(limit(2000, Count.TOKENS))
    await desk.ask(reservation="r")
    await desk.settle("r")

    assert await desk.limiter.give_back("r") is SettleOutcome.DUPLICATE
    assert await desk.remaining() == [1850]


async def test_a_check_that_comes_after_the_end_of_its_request_holds_nothing() -> None:
    desk = Desk(limit(10), limit(3, Count.CONCURRENT))

    assert await desk.limiter.give_back("r") is SettleOutcome.UNKNOWN
    assert await desk.ask(reservation="r") == REPLAYED
    assert await desk.remaining() == [10, 3]


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_what_the_store_is_asked_for_meanwhile_is_given_back(is_cancelled: bool) -> None:
    """The client leaves while the store has not answered. Our own server then cancels the call."""
    store = SlowStore()
    desk = Desk(limit(10), limit(3, Count.CONCURRENT), store=store)
    asking = asyncio.ensure_future(desk.ask(reservation="r"))
    await asyncio.sleep(0)
    if is_cancelled:
        asking.cancel()
    await desk.limiter.give_back("r")
    store.answers.set()
    await asyncio.gather(asking, return_exceptions=True)

    assert await desk.remaining() == [10, 3]
