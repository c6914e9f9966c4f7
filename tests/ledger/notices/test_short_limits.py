"""Limits that fill and empty all day: a threshold of theirs is told once a day."""

import json
from pathlib import Path

import pytest

from headgate.core.key_ring import KeyScope, NoKeys
from headgate.core.policy import Count, Per
from headgate.identity.limits import KeyLimit, compiled
from ratelimit.store.protocol import Spent
from tests.ledger.builders import rows
from tests.ledger.notices.builders import Site, hook_channel, policy_of
from tests.ledger.notices.receivers import hook_receiver
from tests.postgres_server import PostgresServer

MINUTE = "{count: tokens, limit: 1000, per: minute, notify: [50, 80]}"
SECOND = "{count: tokens, limit: 1000, per: second, notify: [50]}"
SLOTS = "{count: concurrent, limit: 2, notify: [50, 100]}"
SMOOTH = "{count: tokens, limit: 60, per: minute, smooth: true, burst: 1000, notify: [50, 90]}"
DAY_S = 86_400.0
KEY = "~issued"


@pytest.fixture
def site(postgres: PostgresServer) -> Site:
    return Site(postgres, policy_of(MINUTE))


async def test_a_minute_that_fills_again_and_again_is_told_once_a_day(site: Site) -> None:
    for _ in range(3):
        await site.use(500)
        await site.keeper().turn()
        site.clock.advance(60)
    assert await site.decided() == ["50"]

    site.clock.advance(DAY_S)
    await site.use(500)
    await site.keeper().turn()
    assert await site.decided() == ["50", "50"]


async def test_a_notice_of_a_minute_is_of_the_day_in_the_calendar_of_the_tenant(site: Site) -> None:
    site.policy = policy_of(MINUTE, tenant="timezone: Asia/Tokyo")
    await site.use(500)
    await site.keeper().turn()

    [(begin, end, per)] = await rows(
        site.server,
        "select (begin_at at time zone 'Asia/Tokyo')::text,"
        " (end_at at time zone 'Asia/Tokyo')::text, per from headgate.notice",
    )
    assert (begin, end, per) == ("2026-10-28 00:00:00", "2026-10-29 00:00:00", "minute")


@pytest.mark.parametrize("later_s", [0, 9, 14])
async def test_the_fullest_second_since_the_last_look_counts(site: Site, later_s: int) -> None:
    site.policy = policy_of(SECOND)
    await site.use(500)
    site.clock.advance(later_s)
    await site.use(10)
    await site.keeper().turn()

    assert await site.decided() == ["50"]


async def test_a_minute_that_ended_just_before_the_look_counts(site: Site) -> None:
    site.clock.advance(59)
    await site.use(800)
    site.clock.advance(5)
    await site.keeper().turn()

    assert sorted(await site.decided()) == ["50", "80"]


async def test_requests_in_flight_are_seen_while_they_run(site: Site) -> None:
    site.policy = policy_of(SLOTS)
    await site.use(1)
    await site.keeper().turn()
    assert await site.decided() == ["50"]

    await site.use(1)
    await site.keeper().turn()
    await site.store.settle("r1", "acme", Spent(1), site.clock.now_s())
    await site.keeper().turn()
    assert await site.decided() == ["50", "100"]


async def test_a_notice_of_requests_in_flight_has_no_window_and_says_when_it_comes_again(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        site = Site(postgres, policy_of(SLOTS, channels=hook_channel(tmp_path, hook.url)))
        for _ in range(2):
            await site.use(1)
        await site.keeper().turn()

    [(_, body)] = hook.got
    told = json.loads(body)
    assert (told["limit"]["per"], told["limit"]["limit"], told["used"]) == (None, 2, 2)
    assert told["text"].splitlines()[:2] == [
        "acme used 2 requests of 2 requests at once.",
        "This is told once from 2026-10-28 00:00 to 2026-10-29 00:00 (UTC).",
    ]


async def test_a_bucket_is_full_by_its_burst_and_empties_by_time(site: Site) -> None:
    site.policy = policy_of(SMOOTH)
    await site.use(510)
    site.clock.advance(20)  # drains 20
    await site.keeper().turn()
    assert await site.decided() == []

    await site.use(400)
    await site.keeper().turn()
    assert await site.decided() == ["50"]


class OneKey(NoKeys):
    """A ring with one key, which has limits of its own."""

    def scope_of(self, key: str) -> KeyScope | None:
        own = KeyLimit(Count.TOKENS, 1000, Per.MONTH), KeyLimit(Count.CONCURRENT, 1)
        return KeyScope(limits=tuple(map(compiled, own))) if key == KEY else None


async def test_a_keys_own_limits_have_the_thresholds_of_its_tenant(site: Site) -> None:
    site.policy = policy_of(tenant="notify_keys: [50, forecast]")
    site.keys = OneKey()
    await site.keeper().turn()  # from now on the records of this tenant are noted
    await site.use(600, key=KEY)
    await site.record("rita", key=KEY)
    await site.record("sam", key="~unknown")
    await site.keeper().turn()

    found = await rows(
        site.server, "select limit_id, threshold, key from headgate.notice order by 1, 2"
    )
    assert found == [
        ("own.concurrent.key", "50", KEY),
        ("own.tokens.month.key", "50", KEY),
    ]
