"""Looking up and keeping, by a clock that stands still."""

import pytest
from prometheus_client import CollectorRegistry

from extproc.cache.answers import Absence, Found, Keep, Kept
from extproc.cache.cache import MOST_RECORDED_BYTES, AnswerCache, Hit, Place
from extproc.cache.memory import MemoryAnswers
from extproc.counting.counter import AnswerHead
from extproc.types import Caching
from headgate.core.metrics import Metrics
from tests.extproc.cache.builders import ADMISSION, BODY, JSON_ANSWER, caching
from tests.fakes import FakeClock

HEAD = AnswerHead(200, "application/json", None)


class Desk:
    """A cache in memory, and its counters."""

    def __init__(self, secret: bytes = b"s" * 32, store: MemoryAnswers | None = None) -> None:
        self.clock = FakeClock(1000)
        self.registry = CollectorRegistry()
        self.store = store or MemoryAnswers(self.clock)
        metrics = Metrics(self.registry, self.clock)
        self.cache = AnswerCache(self.store, secret, self.clock, metrics)

    async def look_up(self, asked: Caching | None = None, body: bytes = BODY) -> Hit | Place | None:
        return await self.cache.look_up(asked or caching(), ADMISSION, body)

    async def place(self, asked: Caching | None = None) -> Place:
        place = await self.look_up(asked)
        assert isinstance(place, Place)
        return place

    async def keep(self, asked: Caching | None = None, body: bytes = JSON_ANSWER) -> None:
        recorder = self.cache.recorder(await self.place(asked))
        recorder.begin(HEAD, False)
        recorder.add(body, True)
        recorder.close()
        await self.cache.close()

    def lookups(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("headgate_cache_lookups_total", {"outcome": outcome})

    def answers(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("headgate_cache_answers_total", {"outcome": outcome})


async def test_a_kept_answer_is_found_with_its_age() -> None:
    desk = Desk()
    await desk.keep()
    desk.clock.advance(7.9)

    found = await desk.look_up()
    assert isinstance(found, Hit)
    assert (found.answer.body, found.age_s) == (JSON_ANSWER, 7)
    assert (desk.lookups("absent"), desk.answers("stored")) == (1, 1)


async def test_an_answer_ends_with_its_time_and_with_a_shorter_one_of_a_new_policy() -> None:
    desk = Desk()
    await desk.keep()
    desk.clock.advance(300)
    assert isinstance(await desk.look_up(), Hit)
    assert isinstance(await desk.look_up(caching(ttl_s=299)), Place)
    assert desk.lookups("old") == 1
    desk.clock.advance(300)
    assert isinstance(await desk.look_up(), Place)


@pytest.mark.parametrize(
    ("max_age_s", "is_hit"), [(None, True), (60, True), (59, False), (0, False)]
)
async def test_a_client_bounds_the_age_of_its_answer(max_age_s: int | None, is_hit: bool) -> None:
    desk = Desk()
    await desk.keep()
    desk.clock.advance(60)

    found = await desk.look_up(caching(max_age_s=max_age_s))
    assert isinstance(found, Hit) is is_hit
    assert desk.lookups("not_wanted") == (0 if is_hit else 1)


async def test_another_tenant_or_another_secret_finds_nothing() -> None:
    desk = Desk()
    await desk.keep()

    assert isinstance(await desk.look_up(caching("globex")), Place)
    assert isinstance(await Desk(b"t" * 32, desk.store).look_up(), Place)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"temperature":1}', "not_deterministic"),
        (b'{"temperature":0,"temperature":0}', "odd_body"),
        (b'{"temperature":0,"seed":36893488147419103232}', "odd_body"),
    ],
)
async def test_other_bodies_have_no_place(body: bytes, outcome: str) -> None:
    desk = Desk()

    assert await desk.look_up(body=body) is None
    assert desk.lookups(outcome) == 1


async def test_a_client_that_leaves_keeps_nothing() -> None:
    desk = Desk()
    recorder = desk.cache.recorder(await desk.place())
    recorder.begin(HEAD, False)
    recorder.add(JSON_ANSWER[:-5], False)
    recorder.close()

    assert isinstance(await desk.look_up(), Place)
    assert desk.answers("not_whole") == 1


async def test_an_answer_above_its_bound_is_recorded_no_further() -> None:
    desk = Desk()
    recorder = desk.cache.recorder(await desk.place(caching(max_bytes=10)))
    recorder.begin(HEAD, False)
    assert recorder.records
    recorder.add(JSON_ANSWER, False)

    assert not recorder.records
    recorder.add(b"more", True)
    recorder.close()
    assert (desk.answers("too_large"), desk.answers("not_whole")) == (1, 0)


async def test_beyond_its_room_a_process_records_nothing_and_then_again() -> None:
    desk = Desk()
    place = await desk.place()
    desk.cache.hold(MOST_RECORDED_BYTES)
    full = desk.cache.recorder(place)
    full.begin(HEAD, False)
    assert (full.records, desk.answers("no_room")) == (False, 1)

    desk.cache.hold(-MOST_RECORDED_BYTES)
    await desk.keep()
    assert isinstance(await desk.look_up(), Hit)
    assert desk.cache.has_room()


class AwayAnswers(MemoryAnswers):
    """A store that does not answer."""

    async def find(self, tenant: str, key: str) -> Found:
        return Found(Absence.AWAY)

    async def keep(self, answer: Keep) -> Kept:
        return Kept.FAILED


async def test_without_its_store_a_request_goes_on_and_nothing_is_recorded() -> None:
    desk = Desk(store=AwayAnswers(FakeClock(1000)))

    assert await desk.look_up() is None
    assert desk.lookups("away") == 1


async def test_an_answer_that_the_store_does_not_take_is_counted() -> None:
    desk = Desk()
    place = await desk.place()
    await desk.store.purge("acme")
    recorder = desk.cache.recorder(place)
    recorder.begin(HEAD, False)
    recorder.add(JSON_ANSWER, True)
    await desk.cache.close()

    assert desk.answers("purged") == 1
