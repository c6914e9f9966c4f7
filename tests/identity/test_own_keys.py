"""Users' own keys in the database: each sees and ends their own only."""

import asyncio
import json
from typing import Any

import pytest

from extproc.types import KeyAction, KeyCall
from headgate.core.errors import ApiError
from headgate.core.policy import Caller
from headgate.database.address import database_address
from headgate.identity.own_keys import OwnKeys
from headgate.identity.store import KeyStore
from tests.fakes import FakeClock
from tests.identity.builders import POLICY, store_of
from tests.postgres_server import PostgresServer

ALICE, EVE = Caller("acme", "okta:alice", "okta"), Caller("acme", "okta:eve", "okta")
ELSEWHERE = Caller("globex", "okta:alice", "okta")


class Desk:
    def __init__(self, store: KeyStore, clock: FakeClock) -> None:
        self.clock = clock
        self.own_keys = OwnKeys(store, lambda: POLICY, clock)

    async def ask(self, caller: Caller, action: KeyAction, **rest: Any) -> Any:
        """The JSON, or the code of the refusal."""
        said = await self.own_keys(KeyCall(caller=caller, action=action, **rest))
        return said.refusal.code if isinstance(said, ApiError) else json.loads(said)

    async def issue(self, caller: Caller = ALICE, hours: int = 1) -> Any:
        return await self.ask(caller, KeyAction.ISSUE, hours=hours, most=2, name="laptop")

    async def listed(self, caller: Caller = ALICE) -> list[str]:
        return [key["id"] for key in (await self.ask(caller, KeyAction.LIST))["data"]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(postgres: PostgresServer, clock: FakeClock) -> KeyStore:
    return store_of(postgres.address(postgres.clean_database()), clock)


@pytest.fixture
def desk(store: KeyStore, clock: FakeClock) -> Desk:
    return Desk(store, clock)


async def test_a_key_is_its_users_own_with_a_name_and_an_end(desk: Desk, store: KeyStore) -> None:
    made = await desk.issue()
    kept = await store.get(made["id"])

    assert made["secret"].startswith("sk-hg-")
    assert (kept.request.tenant, kept.request.user) == ("acme", "okta:alice")
    assert kept.request.labels == {"name": "laptop"}
    assert kept.request.expires_s == pytest.approx(desk.clock.now_s() + 3600)
    assert await desk.listed() == [made["id"]]


async def test_no_more_keys_than_allowed_even_at_once_until_one_has_ended(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.issue() for _ in range(4)))
    assert sorted(isinstance(one, dict) for one in made) == [False, False, True, True]
    assert len(await desk.listed()) == 2

    desk.clock.advance(3600)
    assert await desk.listed() == []
    assert isinstance(await desk.issue(), dict)


@pytest.mark.parametrize("caller", [EVE, ELSEWHERE], ids=["another user", "another tenant"])
async def test_nobody_reaches_the_key_of_another(desk: Desk, caller: Caller) -> None:
    id = (await desk.issue())["id"]

    assert await desk.listed(caller) == []
    assert await desk.ask(caller, KeyAction.REVOKE, key=id) == "key_not_found"
    assert await desk.listed() == [id]


async def test_a_key_that_has_ended_cannot_be_ended_again(desk: Desk) -> None:
    id = (await desk.issue())["id"]

    ended = await desk.ask(ALICE, KeyAction.REVOKE, key=id)

    assert ended == {"object": "headgate.key", "id": id, "deleted": True}
    assert await desk.ask(ALICE, KeyAction.REVOKE, key=id) == "key_not_found"
    assert await desk.ask(ALICE, KeyAction.REVOKE, key="~0000000000000000") == "key_not_found"


async def test_while_the_database_is_away_the_answer_is_503(
    tmp_path: Any, clock: FakeClock
) -> None:
    away = Desk(store_of(database_address(f"postgresql://x@/x?host={tmp_path}"), clock), clock)

    assert await away.issue() == "service_unavailable"
