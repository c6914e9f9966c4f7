"""Replicas tell each other ids through Redis."""

import pytest

from ratelimit.store.names import UNANSWERED
from ratelimit.store.redis import RedisStore
from tests.ratelimit.builders import new_name
from tests.redis_server import PATIENT_S, RedisServer


@pytest.mark.parametrize("kind", ["redis_server", "redis_cluster"])
async def test_each_id_is_told_once_and_in_order(kind: str, request: pytest.FixtureRequest) -> None:
    server: RedisServer = request.getfixturevalue(kind)
    store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
    ids = [new_name("id") for _ in range(3)]
    before = await store.exchange_ids([], "")

    first = await store.exchange_ids(ids[:2], before.place)
    second = await store.exchange_ids(ids[2:], first.place)
    nothing = await store.exchange_ids([], second.place)
    late = await store.exchange_ids([], "")

    assert [first.ids, second.ids, nothing.ids] == [(ids[0], ids[1]), (ids[2],), ()]
    assert nothing.place == second.place
    assert late.ids[-3:] == tuple(ids)
    with server.client() as client:
        assert 0 < client.pttl(UNANSWERED) <= 120_000
    await store.close()
