"""A limit in slices, one rule at a time. The invariants are in test_slices_invariants.py."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ratelimit.store.outage.breaker import FAILURES
from ratelimit.store.protocol import (
    MAX_COUNT,
    SETTLED_KEPT_S,
    Reserved,
    ReserveDecision,
    SettleOutcome,
    Spent,
    StoreError,
)
from ratelimit.store.shared import Batch
from ratelimit.store.slices import holds
from ratelimit.store.slices.batches import ForwardedSettlement, ForwardingQueue, decode, encode
from ratelimit.store.slices.forwarding import SETTLES_AT_ONCE, Forwarding
from ratelimit.store.slices.pool import IDLE_S, REFUSED_FOR_S
from tests.ratelimit.builders import (
    NOW_S,
    Shop,
    admitted,
    lease,
    peek,
    refused,
    requests,
    spent,
    tokens,
)
from tests.ratelimit.fleets import Fleet, sliced
from tests.ratelimit.outages import in_shadow, shared_out

ADMITTED, REFUSED, REPLAYED = (
    ReserveDecision.ADMITTED,
    ReserveDecision.REFUSED,
    ReserveDecision.REPLAYED,
)


async def lose_the_store(fleet: Fleet, place: int = 0) -> None:
    """Takes the store away and lets a replica notice, by requests of somebody else."""
    fleet.shared.away = True
    for _ in range(FAILURES):
        with pytest.raises(StoreError):
            await fleet.replicas[place].store.reserve(Shop().ask(requests(1)))


async def test_a_busy_limit_costs_two_round_trips_for_each_slice() -> None:
    fleet = await Fleet.of(1)
    before = fleet.shared.calls
    for number in range(1000):
        answer = await fleet.ask(0, sliced(tokens(10, 100_000), 1000), id=f"r{number}")
        assert answer.decision is ADMITTED
        await fleet.settle(0, f"r{number}", answer.held_by, spent(10, 1))
    await fleet.rest()
    assert await fleet.in_store("tokens") == (10_000,)
    # 10 slices taken and given back, and some announcements of the replica.
    assert fleet.shared.calls - before <= 25


@pytest.mark.parametrize("size", [1, 999, 1000, 2500, 10_000])
async def test_equal_requests_get_exactly_what_there_is_at_any_number_of_replicas(
    size: int,
) -> None:
    fleet = await Fleet.of(3)
    answers = await asyncio.gather(
        *(fleet.ask(n % 3, sliced(tokens(1000, 10_000), size)) for n in range(1000))
    )
    assert sum(answer.decision is ADMITTED for answer in answers) == 10


async def test_what_one_replica_has_taken_is_used_for_another_and_free_for_itself() -> None:
    fleet = await Fleet.of(2)
    replica, other = fleet.replicas
    answer = await fleet.ask(0, sliced(tokens(10, 1000), 100))
    assert answer.used == {"tokens": 10}
    tenant = fleet.shop.tenant
    assert await peek(replica.store, tenant, ["tokens"], [], NOW_S) == (10,)
    assert await peek(other.store, tenant, ["tokens"], [], NOW_S) == (100,)
    assert (await fleet.ask(1, sliced(tokens(10, 1000), 100))).used == {"tokens": 110}


async def test_a_slice_that_nobody_draws_from_goes_back() -> None:
    fleet = await Fleet.of(1)
    answer = await fleet.ask(0, sliced(tokens(10, 1000), 100), id="r")
    await fleet.settle(0, "r", answer.held_by, spent(4, 1))
    await fleet.replicas[0].tend()
    assert await fleet.in_store("tokens") == (100,)
    fleet.clock.advance(IDLE_S)
    await fleet.replicas[0].tend()
    assert await fleet.in_store("tokens") == (4,)


async def test_a_long_stream_keeps_what_it_holds_and_no_more() -> None:
    fleet = await Fleet.of(1)
    answer = await fleet.ask(0, sliced(tokens(10, 1000), 100), id="long")
    other = await fleet.ask(0, sliced(tokens(20, 1000), 100), id="short")
    await fleet.settle(0, "short", other.held_by, spent(7, 1))
    await fleet.rest()
    assert await fleet.in_store("tokens") == (17,)
    await fleet.settle(0, "long", answer.held_by, spent(3, 1))
    await fleet.rest()
    assert await fleet.in_store("tokens") == (10,)


async def test_nothing_is_drawn_from_a_slice_while_it_shrinks() -> None:
    fleet = await Fleet.of(1)
    await fleet.ask(0, sliced(tokens(10, 100), 100), id="long")
    fleet.clock.advance(IDLE_S)
    drawn: list[Reserved] = []
    original = fleet.shared.reserve

    async def reserve(reservation: object) -> Reserved:
        if not drawn:  # another request comes while the store is asked to shrink it
            drawn.append(Reserved(decision=REFUSED))
            drawn[0] = await original(reservation)
            task = asyncio.create_task(fleet.ask(0, sliced(tokens(30, 100), 100), id="late"))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not task.done()
            later.append(task)
            return drawn[0]
        return await original(reservation)

    later: list[asyncio.Task[Reserved]] = []
    fleet.shared.reserve = reserve
    await fleet.replicas[0].tend()
    assert (await later[0]).used == {"tokens": 40}
    assert sum(each.amount for pool in fleet.pools(0) for each in pool.slices) >= 40


async def test_what_was_used_above_a_slice_is_told_before_more_is_taken() -> None:
    fleet = await Fleet.of(1)
    answer = await fleet.ask(0, sliced(tokens(10, 100), 20), id="r")
    await fleet.settle(0, "r", answer.held_by, spent(95, 1))
    assert await fleet.ask(0, sliced(tokens(10, 100), 20)) == refused("tokens", tokens=95)
    assert (await fleet.ask(0, sliced(tokens(5, 100), 20))).used == {"tokens": 100}


async def test_what_is_used_up_is_asked_for_again_after_a_moment() -> None:
    fleet = await Fleet.of(2)
    first = await fleet.ask(0, sliced(requests(1), 1), id="r")
    fleet.clock.advance(IDLE_S)
    assert (await fleet.ask(1, sliced(requests(1), 1))).decision is REFUSED
    await fleet.settle(0, "r", first.held_by, Spent())
    await fleet.replicas[0].tend()
    calls = fleet.shared.calls
    assert (await fleet.ask(1, sliced(requests(1), 1))).decision is REFUSED
    assert fleet.shared.calls == calls
    fleet.clock.advance(REFUSED_FOR_S)
    assert (await fleet.ask(1, sliced(requests(1), 1))).decision is ADMITTED


async def test_the_remainders_of_several_slices_are_joined_before_a_request_is_refused() -> None:
    fleet = await Fleet.of(1)
    held = {}
    for number in range(4):
        answer = await fleet.ask(0, sliced(tokens(25, 100), 25), id=f"r{number}")
        held[f"r{number}"] = answer.held_by
    for name, held_by in held.items():
        await fleet.settle(0, name, held_by, spent(5, 1))
    assert (await fleet.ask(0, sliced(tokens(80, 100), 25))).decision is ADMITTED
    assert await fleet.in_store("tokens") == (100,)


async def test_a_settlement_at_another_replica_reaches_the_one_that_holds_it() -> None:
    fleet = await Fleet.of(2)
    answer = await fleet.ask(0, sliced(tokens(100, 1000), 500), id="r")
    assert answer.held_by == fleet.replicas[0].name
    calls = fleet.shared.calls
    settled = await fleet.settle(1, "r", answer.held_by, spent(30, 1))
    assert (settled.outcome, fleet.shared.calls) == (SettleOutcome.FORWARDED, calls)
    await fleet.rest()
    assert await fleet.in_store("tokens") == (30,)
    again = await fleet.settle(0, "r", answer.held_by, spent(30, 1))
    assert again.outcome is SettleOutcome.DUPLICATE
    assert not any(fleet.shared.batches.values())


async def test_the_part_that_redis_holds_is_settled_there_by_whoever_settles() -> None:
    fleet = await Fleet.of(2)
    store, shop = fleet.replicas[0].store, fleet.shop
    asked = shop.ask(sliced(tokens(100, 1000), 500), tokens(100, 900, "plain"), lease(1), id="r")
    answer = await store.reserve(asked)
    assert answer == replace(
        admitted(tokens=100, plain=100, slots=1), held_by=f"{fleet.replicas[0].name}+"
    )
    settled = await fleet.settle(1, "r", answer.held_by, spent(30, 1))
    assert settled.used == {"plain": 30, "slots": 0}
    await fleet.rest()
    assert await fleet.in_store("tokens", "plain") == (30, 30)


async def test_a_refusal_by_redis_holds_nothing_in_slices() -> None:
    fleet = await Fleet.of(1)
    asked = fleet.shop.ask(lease(0), sliced(tokens(100, 1000), 500))
    assert await fleet.replicas[0].store.reserve(asked) == refused("slots", tokens=0, slots=0)
    await fleet.rest()
    assert await fleet.in_store("tokens") == (0,)


async def test_what_died_with_its_replica_stands_and_a_settlement_of_it_harms_nobody() -> None:
    fleet = await Fleet.of(2)
    answer = await fleet.ask(0, sliced(tokens(100, 1000), 500), id="r")
    fleet.shared.replicas.discard(fleet.replicas.pop(0).name)
    assert (
        await fleet.settle(0, "r", answer.held_by, spent(30, 1))
    ).outcome is SettleOutcome.FORWARDED
    await fleet.rest()
    assert await fleet.in_store("tokens") == (500,)


async def test_what_runs_while_its_replica_leaves_is_settled_through_another() -> None:
    fleet = await Fleet.of(2)
    first = await fleet.ask(0, sliced(tokens(100, 1000), 500), id="first")
    second = await fleet.ask(0, sliced(tokens(100, 1000), 500), id="second")
    await fleet.settle(1, "second", second.held_by, spent(20, 1))
    await fleet.replicas[1].tend()  # posted, and not collected yet
    await fleet.replicas.pop(0).store.withdraw()
    assert await fleet.in_store("tokens") == (120,)
    await fleet.settle(0, "first", first.held_by, spent(30, 1))
    await fleet.rest()
    assert await fleet.in_store("tokens") == (50,)


async def test_many_settlements_of_other_replicas_give_the_loop_back_in_between() -> None:
    """After an outage a replica may get a thousand of them at once, and every hook waits."""
    settlements = [ForwardedSettlement("acme", f"r-{n}", spent(1, 1)) for n in range(200)]
    settled_in_a_turn = [0]

    async def count_turns() -> None:
        while True:
            await asyncio.sleep(0)
            settled_in_a_turn.append(0)

    def settle(_: ForwardedSettlement) -> None:
        settled_in_a_turn[-1] += 1

    fleet = await Fleet.of(1)
    batch = Batch(fleet.replicas[0].name, "b", encode(settlements))
    await fleet.shared.exchange("somebody", [batch], [])
    forwarding = Forwarding(fleet.replicas[0].resilient, fleet.replicas[0].name, fleet.clock)
    turns = asyncio.create_task(count_turns())
    await asyncio.sleep(0)
    await forwarding.exchange(expects=True, settle=settle)
    turns.cancel()

    assert sum(settled_in_a_turn) == 200
    assert max(settled_in_a_turn) <= SETTLES_AT_ONCE


async def test_a_settlement_that_is_forwarded_while_its_replica_withdraws_is_made() -> None:
    fleet = await Fleet.of(2)
    answer = await fleet.ask(0, sliced(tokens(100, 1000), 500), id="r")
    leaving = fleet.replicas.pop(0)
    original = fleet.shared.withdraw

    async def withdraw(replica: str) -> None:
        await fleet.settle(0, "r", answer.held_by, spent(30, 1))
        await fleet.replicas[0].tend()
        await original(replica)

    fleet.shared.withdraw = withdraw
    await leaving.store.withdraw()
    assert await fleet.in_store("tokens") == (30,)


async def test_slices_serve_on_in_an_outage_and_forwarded_settlements_wait() -> None:
    fleet = await Fleet.of(2)
    first = await fleet.ask(0, sliced(tokens(100, 1000), 300), id="first")
    for place in (0, 1):
        await lose_the_store(fleet, place)
    await fleet.rest()
    second = await fleet.ask(0, sliced(tokens(100, 1000), 300), id="second")
    assert (second.decision, second.degraded) == (ADMITTED, False)
    await fleet.settle(1, "first", first.held_by, spent(10, 1))
    await fleet.settle(0, "second", second.held_by, spent(20, 1))
    assert (await fleet.ask(0, sliced(tokens(100, 1000), 300))).decision is ADMITTED
    assert (await fleet.ask(0, sliced(tokens(80, 1000), 300))).decision is ADMITTED
    with pytest.raises(StoreError):  # nothing left here
        await fleet.ask(0, sliced(tokens(1, 1000), 300))
    await fleet.recover()
    await fleet.rest()
    assert await fleet.in_store("tokens") == (10 + 20 + 100 + 80,)


async def test_without_room_in_slices_an_outage_is_the_limit_s_own_matter() -> None:
    fleet = await Fleet.of(1)
    await lose_the_store(fleet)
    answer = await fleet.ask(0, shared_out(sliced(tokens(100, 1000), 300)), id="r")
    assert (answer.decision, answer.degraded, answer.held_by) == (ADMITTED, True, "")
    await fleet.recover()
    await fleet.settle(0, "r", answer.held_by, spent(30, 1))
    await fleet.rest()
    assert await fleet.in_store("tokens") == (30,)


async def test_what_the_store_holds_as_a_whole_is_held_once_when_asked_again() -> None:
    fleet = await Fleet.of(1)
    fleet.shared.fails = {"not this one"}
    original = fleet.shared.reserve

    async def only_whole(reservation: object) -> Reserved:
        if reservation.id != "r":
            raise StoreError("slow")
        return await original(reservation)

    fleet.shared.reserve = only_whole
    assert (await fleet.ask(0, sliced(tokens(100, 1000), 300), id="r")).held_by == ""
    fleet.shared.reserve = original
    assert (await fleet.ask(0, sliced(tokens(100, 1000), 300), id="r")).used == {"tokens": 100}
    assert (await fleet.settle(0, "r", "", spent(30, 1))).outcome is SettleOutcome.SETTLED
    await fleet.rest()
    assert await fleet.in_store("tokens") == (30,)


async def test_a_call_that_is_given_up_loses_no_slice() -> None:
    fleet = await Fleet.of(1)
    asked, go = asyncio.Event(), asyncio.Event()
    original = fleet.shared.reserve

    async def slow(reservation: object) -> Reserved:
        asked.set()
        await go.wait()
        return await original(reservation)

    fleet.shared.reserve = slow
    call = asyncio.create_task(fleet.ask(0, sliced(tokens(100, 1000), 300), id="r"))
    await asked.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    go.set()
    await fleet.rest()
    assert await fleet.in_store("tokens") == (0,)
    assert (await fleet.settle(0, "r", "", Spent())).outcome is SettleOutcome.UNKNOWN


async def test_two_calls_of_one_id_hold_once() -> None:
    fleet = await Fleet.of(1)
    asked = sliced(tokens(100, 1000), 300)
    answers = await asyncio.gather(*(fleet.ask(0, asked, id="r") for _ in range(5)))
    assert [answer.used for answer in answers] == [{"tokens": 100}] * 5
    await fleet.settle(0, "r", answers[0].held_by, spent(30, 1))
    assert await fleet.ask(0, asked, id="r") == Reserved(decision=REPLAYED)


async def test_asked_again_at_another_replica_it_is_held_twice_and_charged_once() -> None:
    fleet = await Fleet.of(2)
    asked = sliced(tokens(100, 1000), 100)
    await fleet.ask(0, asked, id="r")
    last = await fleet.ask(1, asked, id="r")
    assert await fleet.in_store("tokens") == (200,)
    await fleet.settle(0, "r", last.held_by, spent(30, 1))
    await fleet.rest()
    assert await fleet.in_store("tokens") == (30,)


async def test_what_is_never_settled_leaves_the_memory_and_stands() -> None:
    fleet = await Fleet.of(1)
    store, shop = fleet.replicas[0].store, fleet.shop
    answer = await store.reserve(shop.ask(sliced(tokens(10, 1000), 100), id="r", hold_s=60))
    fleet.clock.advance(60)
    assert (
        await fleet.settle(0, "r", answer.held_by, spent(3, 1))
    ).outcome is SettleOutcome.UNKNOWN
    await fleet.rest()
    assert await fleet.in_store("tokens") == (10,)
    await fleet.rest()
    assert fleet.pools(0) == []


async def test_a_settlement_reaches_the_window_that_held_it() -> None:
    fleet = await Fleet.of(1)
    store, shop = fleet.replicas[0].store, fleet.shop
    over = replace(sliced(tokens(10, 1000, "10:00"), 100), expires_at_s=int(NOW_S) + 60)
    first = await store.reserve(shop.ask(over, id="first"))
    await store.reserve(shop.ask(over, id="second"))
    await fleet.ask(0, sliced(tokens(10, 1000, "10:01"), 100))
    settled = await fleet.settle(0, "first", first.held_by, spent(3, 1))
    assert settled.used == {"10:00": 13}
    fleet.clock.advance(60)
    await fleet.settle(0, "second", first.held_by, spent(3, 1))
    await fleet.ask(0, sliced(tokens(10, 1000, "10:01"), 100))
    await fleet.rest()
    assert await fleet.in_store("10:00", "10:01") == (0, 20)  # the first one is over for good


async def test_a_settled_id_is_remembered_for_a_while() -> None:
    fleet = await Fleet.of(1)
    answer = await fleet.ask(0, sliced(tokens(10, 1000), 100), id="r")
    await fleet.settle(0, "r", answer.held_by, spent(3, 1))
    fleet.clock.advance(SETTLED_KEPT_S)
    calls = fleet.shared.calls
    assert (
        await fleet.settle(0, "r", answer.held_by, spent(3, 1))
    ).outcome is SettleOutcome.UNKNOWN
    assert fleet.shared.calls == calls


async def test_a_shadow_limit_is_not_sliced() -> None:
    fleet = await Fleet.of(1)
    answer = await fleet.ask(0, in_shadow(sliced(tokens(10, 5), 5)))
    assert answer == admitted("tokens", tokens=10)


async def test_reservations_above_the_largest_number_of_holds_are_the_store_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holds, "MAX_HELD", 1)
    fleet = await Fleet.of(1)
    assert (await fleet.ask(0, sliced(tokens(10, 1000), 100))).held_by
    assert not (await fleet.ask(0, sliced(tokens(10, 1000), 100))).held_by
    assert await fleet.in_store("tokens") == (110,)


async def test_a_batch_that_cannot_be_read_is_logged_and_the_others_are_settled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = await Fleet.of(2)
    answer = await fleet.ask(0, sliced(tokens(10, 1000), 100), id="r")
    name = fleet.replicas[0].name
    texts = ["", "{}", "[1]", '[["t", 1, {}]]', '[["t", "r", {"input": -1}]]', "[[" * 9999]
    batches = [Batch(name, f"{n}", text) for n, text in enumerate(texts)]
    await fleet.shared.exchange("somebody", batches, [])
    await fleet.settle(1, "r", answer.held_by, spent(3, 1))
    with caplog.at_level(logging.ERROR):
        await fleet.rest()
    assert await fleet.in_store("tokens") == (3,)
    unread = "cannot read the settlements that another replica forwarded: "
    assert [message.startswith(unread) for message in caplog.messages] == [True] * len(texts)


def test_batches_wait_until_the_store_has_them_and_no_more_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ratelimit.store.slices.batches.MAX_WAITING", 2)
    names = iter("abc")
    queue = ForwardingQueue(lambda: next(names))
    settlement = ForwardedSettlement("t", "r", Spent())
    assert [queue.add(replica, settlement) for replica in "xyz"] == [True, True, False]
    batches = queue.batches()
    assert queue.batches() == batches
    assert [*queue.stored(batches)] == [("x", settlement), ("y", settlement)]
    assert (queue.batches(), len(queue)) == ([], 0)


counts = st.integers(0, MAX_COUNT)
usages = st.builds(Spent, counts, counts, counts, counts)


@given(st.lists(st.builds(ForwardedSettlement, st.text(), st.text(), usages)))
def test_a_batch_holds_the_settlements_that_were_encoded(
    settlements: list[ForwardedSettlement],
) -> None:
    assert decode(encode(settlements)) == settlements


async def test_of_a_window_that_is_over_the_store_decides_as_a_whole() -> None:
    fleet = await Fleet.of(1)
    over = replace(sliced(tokens(10, 1000), 100), expires_at_s=int(NOW_S))
    assert (await fleet.ask(0, over)).held_by == ""


async def test_a_replica_that_withdraws_in_an_outage_says_what_it_could_not_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = await Fleet.of(2)
    answer = await fleet.ask(0, sliced(tokens(10, 1000), 100), id="r")
    await fleet.settle(1, "r", answer.held_by, spent(3, 1))
    fleet.shared.away = True

    for replica in fleet.replicas:
        await replica.store.withdraw()

    kept = "withdraw: could not give back all slices of limits: StoreError('away')"
    assert caplog.messages == [
        kept,
        kept,
        "withdraw: settlements that were not forwarded to the replicas that hold them: 1",
    ]
