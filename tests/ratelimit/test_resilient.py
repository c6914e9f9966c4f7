"""The answers to requests in an outage, by the limits that they meet."""

import asyncio
import logging

import pytest
from msgspec.structs import replace

from headgate.core.background import BackgroundTask
from headgate.core.policy import OnOutage
from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.outage import debt, shares
from ratelimit.store.outage.breaker import FAILURES
from ratelimit.store.protocol import (
    Demand,
    Reserved,
    ReserveDecision,
    Settled,
    SettleOutcome,
    StoreAwayError,
    StoreError,
)
from tests.ratelimit.builders import NOW_S, Shop, lease, new_name, peek, requests, spent, tokens
from tests.ratelimit.outages import FakeShared, Replica, in_shadow, new_replica, opened, shared_out

ADMITTED, REFUSED, REPLAYED = (
    ReserveDecision.ADMITTED,
    ReserveDecision.REFUSED,
    ReserveDecision.REPLAYED,
)


async def in_use(replica: Replica, shop: Shop) -> tuple[int, ...]:
    """The use of tokens, requests and slots in the shared store."""
    now_s = replica.clock.now_s()
    return await peek(replica.shared, shop.tenant, ["tokens", "requests"], ["slots"], now_s)


async def admitted(replica: Replica, shop: Shop, *asked: Demand, count: int = 20) -> int:
    """How many of `count` requests are let in."""
    now_s = replica.clock.now_s()
    answers = [await replica.store.reserve(shop.ask(*asked, now_s=now_s)) for _ in range(count)]
    return sum(answer.decision is ADMITTED for answer in answers)


async def test_a_store_that_is_away_is_not_asked() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    calls = replica.shared.calls

    for _ in range(100):
        with pytest.raises(StoreAwayError, match=r"^the store is away: away$"):
            await replica.store.reserve(shop.ask(requests(5)))
    assert replica.shared.calls == calls


async def test_only_answers_of_the_store_are_timed() -> None:
    replica, shop = await new_replica(), Shop()
    before = replica.metrics.get_sample_value("headgate_store_seconds_count")
    await replica.store.reserve(shop.ask(requests(5)))
    await replica.lose_the_store()

    assert before == 0
    assert replica.metrics.get_sample_value("headgate_store_seconds_count") == 1


async def test_one_failure_is_not_yet_an_outage() -> None:
    replica, shop = await new_replica(), Shop()
    replica.shared.away = True
    with pytest.raises(StoreError, match=r"^away$"):
        await replica.store.reserve(shop.ask(requests(5)))
    answer = await replica.store.reserve(shop.ask(shared_out(requests(5))))
    assert answer.degraded
    replica.shared.away = False

    assert not (await replica.store.reserve(shop.ask(requests(5)))).degraded


async def test_one_closed_limit_closes_the_request_and_nothing_of_it_is_held() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()

    with pytest.raises(StoreError):
        await replica.store.reserve(
            shop.ask(tokens(5, 9), shared_out(requests(9)), opened(lease(9)))
        )

    assert await admitted(replica, shop, shared_out(requests(9))) == 9
    await replica.find_the_store()
    assert await in_use(replica, shop) == (0, 9, 0)


async def test_what_is_open_is_let_in_and_not_counted() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    asked = shop.ask(opened(tokens(60, 100)), opened(lease(1)), id="it")

    for _ in range(5):
        answer = await replica.store.reserve(asked)
        assert answer == Reserved(
            decision=ADMITTED, used={"tokens": 0, "slots": 0}, degraded=True, held=False
        )

    await replica.find_the_store()
    assert await in_use(replica, shop) == (0, 0, 0)


@pytest.mark.parametrize("policy", OnOutage)
async def test_what_is_not_enforced_refuses_nothing_whatever_its_policy(policy: OnOutage) -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    shadows = (
        replace(in_shadow(tokens(5, 3)), on_outage=policy),
        replace(in_shadow(lease(1)), on_outage=policy),
    )
    for _ in range(3):
        answer = await replica.store.reserve(shop.ask(*shadows))
        assert answer == Reserved(
            decision=ADMITTED, used={"tokens": 0, "slots": 0}, degraded=True, held=False
        )

    used = {"tokens": 0, "requests": 1, "slots": 0}
    first = await replica.store.reserve(shop.ask(*shadows, shared_out(requests(1))))
    second = await replica.store.reserve(shop.ask(*shadows, shared_out(requests(1))))
    assert first == Reserved(decision=ADMITTED, used=used, degraded=True)
    assert second == Reserved(decision=REFUSED, used=used, refused=("requests",), degraded=True)
    with pytest.raises(StoreAwayError):
        await replica.store.reserve(shop.ask(*shadows, requests(1, "closed")))

    await replica.find_the_store()
    assert await in_use(replica, shop) == (0, 1, 0)


async def test_what_has_no_policy_fails_at_once_while_the_store_is_away() -> None:
    replica = await new_replica()
    hits = (Hit("hits", 1, 5, int(NOW_S) + 60),)
    assert await replica.store.count("domain", hits, NOW_S) == CountedHits((1,))
    await replica.lose_the_store()
    calls = replica.shared.calls

    with pytest.raises(StoreAwayError):
        await replica.store.count("domain", hits, NOW_S)
    with pytest.raises(StoreAwayError):
        await peek(replica.store, "domain", ["hits"], [], NOW_S)

    assert replica.shared.calls == calls
    await replica.find_the_store()
    assert await replica.store.count("domain", hits, NOW_S) == CountedHits((2,))
    assert await peek(replica.store, "domain", ["hits"], [], NOW_S) == (2,)


async def test_counts_that_fail_tell_that_the_store_is_away_too() -> None:
    replica = await new_replica()
    replica.shared.away = True
    for _ in range(FAILURES):
        with pytest.raises(StoreError, match=r"^away$"):
            await replica.store.count("domain", (Hit("hits", 1, 5, int(NOW_S) + 60),), NOW_S)

    assert replica.count("store_available") == 0


@pytest.mark.parametrize(
    ("limit", "replicas", "share"), [(9, 3, 3), (8, 3, 2), (3, 4, 0), (5, 1, 5)]
)
async def test_a_share_is_the_limit_by_the_replicas_rounded_down(
    limit: int, replicas: int, share: int
) -> None:
    replica, shop = await new_replica(replicas=replicas), Shop()
    await replica.lose_the_store()
    for asked in (shared_out(requests(limit)), shared_out(tokens(1, limit))):
        assert await admitted(replica, shop, asked) == share
    for _ in range(share):
        answer = await replica.store.reserve(shop.ask(shared_out(lease(limit))))
        assert answer.decision is ADMITTED
    refused = await replica.store.reserve(shop.ask(shared_out(lease(limit))))
    assert refused == Reserved(
        decision=REFUSED, used={"slots": limit}, refused=("slots",), degraded=True
    )


async def test_the_replicas_that_the_store_last_told_of_share_it() -> None:
    shared = FakeShared()
    all_three = [await new_replica(shared) for _ in range(3)]
    for replica in all_three:
        replica.clock.advance(5)
        await replica.store.tend()
    shop = Shop()
    for replica in all_three:
        await replica.lose_the_store()

    counts = [await admitted(replica, shop, shared_out(requests(10))) for replica in all_three]

    assert counts == [3, 3, 3]


async def test_the_answer_tells_what_is_left_of_the_share_and_which_limits_had_none() -> None:
    replica, shop = await new_replica(replicas=2), Shop()
    await replica.lose_the_store()
    asked = (opened(tokens(5, 9)), shared_out(requests(10)), opened(lease(3)))

    first = await replica.store.reserve(shop.ask(*asked, shared_out(lease(4, "more"))))
    assert first == Reserved(
        decision=ADMITTED,
        used={"tokens": 0, "requests": 6, "slots": 0, "more": 3},
        degraded=True,
    )
    await replica.store.reserve(shop.ask(*asked, shared_out(lease(4, "more"))))
    third = await replica.store.reserve(shop.ask(*asked, shared_out(lease(4, "more"))))
    assert third == Reserved(
        decision=REFUSED,
        used={"tokens": 0, "requests": 7, "slots": 0, "more": 4},
        refused=("more",),
        degraded=True,
    )


async def test_a_share_is_all_or_none_and_an_id_is_charged_once() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    await replica.store.reserve(shop.ask(shared_out(requests(1, "full"))))
    both = shop.ask(shared_out(tokens(5, 10)), shared_out(requests(1, "full")))
    assert (await replica.store.reserve(both)).refused == ("full",)

    again = shop.ask(shared_out(tokens(10, 10)), id="again")
    assert [(await replica.store.reserve(again)).decision for _ in range(3)] == [ADMITTED] * 3
    outcomes = [
        await replica.store.settle("again", shop.tenant, spent(3, 1), NOW_S) for _ in range(2)
    ]
    assert [settled.outcome for settled in outcomes] == [
        SettleOutcome.SETTLED,
        SettleOutcome.DUPLICATE,
    ]
    assert (await replica.store.reserve(again)).decision is REPLAYED
    assert await admitted(replica, shop, shared_out(tokens(1, 10))) == 7


async def test_several_outages_in_one_window_admit_no_more_than_one_share() -> None:
    replica, shop = await new_replica(), Shop()
    total = 0
    for _ in range(3):
        await replica.lose_the_store()
        total += await admitted(replica, shop, shared_out(requests(10)), count=4)
        await replica.find_the_store()
    assert total == 10
    assert (await in_use(replica, shop))[1] == 10


async def test_the_store_gets_to_know_what_was_admitted_and_used() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.store.reserve(shop.ask(shared_out(tokens(30, 100))))
    await replica.lose_the_store()
    asked = (shared_out(tokens(20, 100)), shared_out(requests(9)), shared_out(lease(5)))
    for name in ("ended", "refunded", "runs"):
        await replica.store.reserve(shop.ask(*asked, id=name))
    await replica.store.settle("ended", shop.tenant, spent(7, 1), NOW_S)
    await replica.store.settle("refunded", shop.tenant, spent(0, 0), NOW_S)

    await replica.find_the_store()

    assert await in_use(replica, shop) == (30 + 7 + 20, 2, 1)
    settled = await replica.store.settle("runs", shop.tenant, spent(11, 1), NOW_S)
    assert settled == Settled(SettleOutcome.SETTLED, {"tokens": 48, "requests": 2, "slots": 0})
    for name in ("ended", "refunded", "runs"):
        again = await replica.store.settle(name, shop.tenant, spent(99, 1), NOW_S)
        assert again.outcome is SettleOutcome.DUPLICATE
    assert [
        replica.count("outage_reconciled_total", what=word)
        for word in ("reservations", "tokens", "expired")
    ] == [3, 27, 0]


async def test_the_store_takes_it_up_above_the_limit_too() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.store.reserve(shop.ask(shared_out(tokens(90, 100))))
    await replica.lose_the_store()
    assert await admitted(replica, shop, shared_out(tokens(20, 100))) == 5

    await replica.find_the_store()

    assert (await in_use(replica, shop))[0] == 190
    assert (await replica.store.reserve(shop.ask(tokens(1, 100)))).decision is REFUSED


async def test_calls_whose_answer_was_lost_count_once() -> None:
    replica, shop = await new_replica(), Shop()
    replica.shared.deaf = True
    asked = (shared_out(tokens(20, 100)), shared_out(lease(5)))
    for name in ("ended", "runs"):
        await replica.store.reserve(shop.ask(*asked, id=name))
    await replica.store.settle("ended", shop.tenant, spent(7, 1), NOW_S)
    with pytest.raises(StoreError):
        await replica.store.reserve(shop.ask(tokens(50, 100), id="closed"))
    assert await in_use(replica, shop) == (90, 0, 2)
    await replica.lose_the_store(deaf=True)
    await replica.find_the_store()

    assert await in_use(replica, shop) == (27, 0, 1)


async def test_a_settlement_of_what_the_store_holds_is_kept_and_made_once() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.store.reserve(shop.ask(tokens(60, 100), lease(2), id="before"))
    await replica.lose_the_store()
    outcomes = [
        (await replica.store.settle("before", shop.tenant, spent(used, 1), NOW_S)).outcome
        for used in (25, 99)
    ]
    assert outcomes == [SettleOutcome.DEFERRED, SettleOutcome.DUPLICATE]
    again = await replica.store.reserve(shop.ask(tokens(60, 100), lease(2), id="before"))
    assert again.decision is REPLAYED

    await replica.find_the_store()

    assert await in_use(replica, shop) == (25, 0, 0)
    late = await replica.store.settle("before", shop.tenant, spent(99, 1), NOW_S)
    assert late.outcome is SettleOutcome.DUPLICATE
    assert replica.count("outage_reconciled_total", what="settlements") == 1


@pytest.mark.parametrize("give_twice", [False, True])
async def test_a_store_that_goes_again_while_it_is_told_counts_nothing_twice(
    give_twice: bool,
) -> None:
    replica, shop = await new_replica(), Shop()
    await replica.store.reserve(shop.ask(tokens(60, 100), id="before"))
    await replica.lose_the_store()
    await replica.store.settle("before", shop.tenant, spent(10, 1), NOW_S)
    await replica.store.reserve(shop.ask(shared_out(tokens(20, 100)), id="during"))
    await replica.store.settle("during", shop.tenant, spent(7, 1), NOW_S)
    replica.shared.away, replica.shared.deaf = False, True
    for _ in range(1 + give_twice):
        await replica.store._debt.reconcile(replica.shared, NOW_S)
    replica.clock.advance(500)  # longer than settled ids are remembered

    await replica.find_the_store()

    assert (await in_use(replica, shop))[0] == 17


async def test_a_settlement_that_another_replica_hears_reaches_what_this_one_admitted() -> None:
    shared = FakeShared()
    replica, other = await new_replica(shared), await new_replica(shared)
    shop = Shop()
    await replica.lose_the_store()
    await other.lose_the_store()
    asked = (shared_out(tokens(60, 100)), shared_out(lease(2)))
    await replica.store.reserve(shop.ask(*asked, id="it"))
    await other.store.settle("it", shop.tenant, spent(10, 1), NOW_S)

    await other.find_the_store()
    assert await in_use(replica, shop) == (0, 0, 0)
    await replica.find_the_store()
    assert await in_use(replica, shop) == (60, 0, 1)
    other.clock.advance(5)
    await other.store.tend()

    assert await in_use(replica, shop) == (10, 0, 0)
    other.clock.advance(60)
    await other.store.tend()
    assert len(other.store._debt) == 0


async def test_a_settlement_of_nothing_is_forgotten_in_the_end() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    await replica.store.settle("never heard of", shop.tenant, spent(5, 1), NOW_S)
    await replica.find_the_store()
    assert len(replica.store._debt) == 1

    replica.clock.advance(debt.ASK_AGAIN_S)
    await replica.store.tend()

    assert len(replica.store._debt) == 0
    assert replica.count("outage_reconciled_total", what="settlements") == 0


async def test_a_window_or_a_lease_that_has_ended_is_not_made_anew() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    minute = shared_out(replace(tokens(5, 100, "minute"), expires_at_s=int(NOW_S) + 60))
    asked = (minute, shared_out(tokens(5, 100)), shared_out(lease(1, lease_s=30)))
    await replica.store.reserve(shop.ask(*asked, id="long"))
    await replica.store.reserve(shop.ask(minute, id="short"))
    replica.clock.advance(60)

    await replica.find_the_store()

    now_s = replica.clock.now_s()
    counters = await peek(replica.shared, shop.tenant, ["minute", "tokens"], ["slots"], now_s)
    assert counters == (0, 5, 0)
    assert replica.count("outage_reconciled_total", what="expired") == 1
    assert len(replica.store._debt) == 0


async def test_no_slot_of_a_share_stays_longer_than_its_lease() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    await replica.store.reserve(shop.ask(shared_out(lease(1, lease_s=30))))
    replica.clock.advance(20)
    await replica.find_the_store()
    assert (await in_use(replica, shop))[2] == 1
    replica.clock.advance(10)

    assert (await in_use(replica, shop))[2] == 0
    await replica.lose_the_store()
    now_s = replica.clock.now_s()
    answer = await replica.store.reserve(shop.ask(shared_out(lease(1, lease_s=30)), now_s=now_s))
    assert answer.decision is ADMITTED


async def test_a_key_that_always_fails_neither_keeps_the_store_away_nor_the_others_waiting() -> (
    None
):
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    for name in ("bad", "good"):
        await replica.store.reserve(shop.ask(shared_out(requests(9)), id=name))
    replica.shared.fails = {"bad"}
    await replica.find_the_store()

    assert (await in_use(replica, shop))[1] == 1
    assert not (await replica.store.reserve(shop.ask(requests(9)))).degraded
    replica.shared.fails = set()
    replica.clock.advance(5)
    await replica.store.tend()
    assert (await in_use(replica, shop))[1] == 3


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MAX_RESERVATIONS", 3)
    monkeypatch.setattr(debt, "MAX_SETTLEMENTS", 4)
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()

    for _ in range(3):
        await replica.store.reserve(shop.ask(shared_out(requests(9))))
    with pytest.raises(StoreAwayError):
        await replica.store.reserve(shop.ask(shared_out(requests(9))))
    outcomes = []
    for used in (0, 0, 0, 5, 5, 5):
        try:
            settled = await replica.store.settle(new_name("r"), shop.tenant, spent(used, 0), NOW_S)
            outcomes.append(settled.outcome == SettleOutcome.DEFERRED)
        except StoreAwayError:
            outcomes.append(False)
    assert outcomes == [True, True, False, True, True, False]


async def test_starting_without_the_store_works() -> None:
    shared, shop = FakeShared(), Shop()
    shared.away = True
    replica = await new_replica(shared, replicas=2)
    assert await admitted(replica, shop, shared_out(requests(10))) == 5
    with pytest.raises(StoreError):
        await replica.store.reserve(shop.ask(requests(10)))

    await replica.find_the_store()

    assert not (await replica.store.reserve(shop.ask(requests(10)))).degraded
    assert (await in_use(replica, shop))[1] == 6


async def test_the_beginning_and_the_end_of_an_outage_are_one_line_each_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica, shop = await new_replica(), Shop()
    assert replica.count("store_available") == 1
    await replica.lose_the_store()
    for policy in (opened, shared_out):
        await replica.store.reserve(shop.ask(policy(requests(1))))
    await replica.store.reserve(shop.ask(shared_out(requests(1))))
    assert replica.count("store_available") == 0
    replica.clock.advance(10)
    await replica.store.tend()  # a probe that fails
    replica.clock.advance(19.5)

    await replica.find_the_store()

    assert replica.count("store_available") == 1
    assert replica.count("store_degraded_seconds_total") == 29.75
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "the store is away, limits do what their on_outage says: away"),
        (logging.WARNING, "the store answers again after an outage of 29.8 s"),
    ]
    decisions = {
        (policy, decision): replica.count(
            "outage_decisions_total", policy=policy, decision=decision
        )
        for policy in ("open", "share", "closed")
        for decision in ("admitted", "refused")
    }
    assert decisions == {
        ("open", "admitted"): 6,  # five of them made it notice
        ("open", "refused"): 0,
        ("share", "admitted"): 1,
        ("share", "refused"): 1,
        ("closed", "admitted"): 0,
        ("closed", "refused"): 0,
    }
    assert replica.count("store_errors_total", operation="reserve") == 5


async def test_at_its_end_a_replica_withdraws_and_tells_what_it_still_owes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared, shop = FakeShared(), Shop()
    replica, other = await new_replica(shared), await new_replica(shared)
    await replica.lose_the_store()
    await replica.store.reserve(shop.ask(shared_out(requests(9))))
    await replica.find_the_store()
    await replica.store.close()
    assert len(shared.replicas) == 1

    await other.lose_the_store()
    await other.store.reserve(shop.ask(shared_out(requests(9)), id="lost"))
    await other.store.close()
    assert caplog.messages[-1] == (
        "reservations and settlements of the outage that never reached the store: 1"
    )


async def test_a_replica_that_cannot_withdraw_says_so(caplog: pytest.LogCaptureFixture) -> None:
    replica = await new_replica()
    replica.shared.away = True

    await replica.store.close()

    assert caplog.messages == ["could not withdraw this replica from the store: StoreError('away')"]


async def test_a_failure_of_the_background_task_is_logged_and_the_next_round_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds = asyncio.Semaphore(0)

    async def tend() -> None:
        rounds.release()
        raise ValueError

    task = BackgroundTask("slices", tend, every_s=0, log=logging.getLogger("headgate"))
    task.start()
    for _ in range(2):
        await rounds.acquire()
    await task.stop()

    assert caplog.messages[0] == "the background task of slices failed"
