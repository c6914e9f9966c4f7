"""Requests that ended before their check was answered: replicas tell each other, and give back."""

from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from headgate.core.settlement import Source
from ratelimit.limiter import SettlementResult
from ratelimit.store.protocol import SettleOutcome, StoreError
from ratelimit.unanswered import MOST_WAITING, Exchange, Unanswered
from tests.fakes import FakeClock
from tests.ratelimit.outages import FakeShared


class Desk:
    """One replica. It has reserved for the requests in `holds`."""

    def __init__(self, exchange: Exchange | None, *holds: str) -> None:
        self.holds = set(holds)
        self.asked: list[str] = []
        self.fails = False
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry, FakeClock())
        self.unanswered = Unanswered(self.give_back, exchange, metrics)

    async def give_back(self, reservation: str) -> SettlementResult:
        if self.fails:
            raise StoreError("away")
        self.asked.append(reservation)
        if reservation not in self.holds:
            return SettleOutcome.UNKNOWN
        self.holds.remove(reservation)
        return Source.REFUND

    def refunds(self) -> float | None:
        labels = {"via": "accesslog", "outcome": "refund"}
        return self.registry.get_sample_value("headgate_settlements_total", labels)


async def rounds(*desks: Desk) -> None:
    for desk in (*desks, *desks):
        await desk.unanswered.tend()


async def test_one_process_gives_back_what_it_holds_itself() -> None:
    desk = Desk(None, "a", "b")
    desk.unanswered.add("a")

    await rounds(desk)

    assert desk.holds == {"b"}
    assert desk.refunds() == 1


async def test_the_replica_that_reserved_gives_back_whoever_got_the_log() -> None:
    shared = FakeShared()
    first, second = (Desk(shared.exchange_ids, name) for name in ("a", "b"))
    first.unanswered.add("b")
    first.unanswered.add("a")

    await rounds(first, second)

    assert first.holds == second.holds == set()
    assert first.asked == second.asked == ["b", "a"]
    assert first.refunds() == second.refunds() == 1


async def test_what_a_replica_was_told_when_its_store_failed_waits_for_the_next_round() -> None:
    desk = Desk(None, "a", "b")
    for name in ("a", "b"):
        desk.unanswered.add(name)
    desk.fails = True
    await rounds(desk)
    desk.fails = False

    await rounds(desk)

    assert desk.holds == set()
    assert desk.asked == ["a", "b"]


async def test_while_the_store_is_away_a_bounded_number_waits() -> None:
    shared = FakeShared()
    shared.away = True
    desk = Desk(shared.exchange_ids, "0")
    for number in range(MOST_WAITING + 1):
        desk.unanswered.add(str(number))
    await rounds(desk)
    shared.away = False

    await rounds(desk)

    assert shared.ids == [str(number) for number in range(MOST_WAITING)]
    assert desk.refunds() == 1


async def test_what_waits_is_told_when_the_process_ends() -> None:
    shared = FakeShared()
    async with Desk(shared.exchange_ids).unanswered as unanswered:
        unanswered.add("a")

    assert shared.ids == ["a"]
