"""Thresholds are decided once: whoever looks, however often, whatever the clock does."""

import asyncio

import pytest

from headgate.core.policy import CompiledPolicy
from ratelimit.store.protocol import PeekQuery, StoreError
from tests.ledger.notices.builders import Site, policy_of
from tests.postgres_server import PostgresServer

MONTH = "{count: tokens, limit: 1000, per: month, notify: [50, 80, 100]}"
EACH = "{count: tokens, limit: 1000, per: month, each: user, notify: [50]}"
DAY_S = 86_400.0
COUNT = "select count(*) from headgate.met_subject"


@pytest.fixture
def site(postgres: PostgresServer) -> Site:
    return Site(postgres, policy_of(MONTH))


async def test_a_threshold_is_decided_once_however_often_somebody_looks(site: Site) -> None:
    await site.use(500)
    for _ in range(3):
        await site.keeper().turn()

    assert await site.decided() == ["50"]


async def test_two_replicas_that_look_at_once_decide_once(site: Site) -> None:
    await site.use(800)
    await asyncio.gather(*(site.keeper().turn() for _ in range(8)))

    assert await site.decided() == ["50", "80"]


async def test_each_window_has_its_own(site: Site) -> None:
    await site.use(500)
    await site.keeper().turn()
    site.clock.advance(10 * DAY_S)
    await site.keeper().turn()
    await site.use(500)
    await site.keeper().turn()

    assert await site.decided() == ["50", "50"]


async def test_a_clock_that_steps_decides_nothing_twice(site: Site) -> None:
    await site.use(500)
    await site.keeper().turn()
    for step_s in (40 * DAY_S, -40 * DAY_S, -60 * DAY_S, 60 * DAY_S):
        site.clock.advance(step_s)
        await site.keeper().turn()

    assert await site.decided() == ["50"]


async def test_another_number_is_another_limit(site: Site) -> None:
    await site.use(500)
    await site.keeper().turn()
    site.policy = policy_of(MONTH.replace("1000", "625"))
    await site.keeper().turn()

    assert sorted(await site.decided()) == ["50", "50", "80"]


async def test_a_budget_of_cost_has_thresholds(site: Site) -> None:
    budget = "{count: cost, limit: 0.001, per: month, notify: [100, forecast]}"
    site.policy = policy_of(budget)
    await site.use(1000)
    await site.keeper().turn()

    assert await site.decided() == ["100"]


async def test_a_user_has_thresholds_of_their_own_once_a_record_met_them(site: Site) -> None:
    site.policy = policy_of(EACH)
    await site.keeper().turn()  # from now on the records of this tenant are noted
    await site.use(500, "rita")
    await site.use(100, "sam")
    await site.record("rita")
    await site.record("sam")
    for _ in range(2):
        await site.keeper().turn()

    assert await site.decided() == ["50 rita"]


async def test_an_old_record_is_not_looked_at(site: Site) -> None:
    site.policy = policy_of(EACH)
    await site.keeper().turn()
    await site.use(500)
    await site.record("rita", time="2020-01-01T00:00:00Z")
    await site.keeper().turn()

    assert await site.decided() == []


async def test_a_tenant_without_thresholds_notes_nobody(site: Site) -> None:
    await site.keeper().turn()
    await site.record("rita")

    assert site.server.run_as("headgate", "clean", COUNT) == [(0,)]


class AwayStore:
    """A store that does not answer."""

    async def peek(self, query: PeekQuery) -> dict[str, int]:
        raise StoreError("Redis does not answer")


async def test_what_a_store_that_is_away_did_not_tell_is_looked_at_later(site: Site) -> None:
    site.policy = policy_of(EACH)
    await site.keeper().turn()
    await site.use(500)
    await site.record("rita")
    await site.keeper(AwayStore()).turn()
    assert await site.decided() == []
    await site.keeper().turn()

    assert await site.decided() == ["50 rita"]


async def test_where_the_policy_has_no_notices_nobody_looks(site: Site) -> None:
    site.policy = CompiledPolicy({}, {}, {})
    await site.keeper().turn()

    assert site.metric("notices_looked_timestamp_seconds") == 0
