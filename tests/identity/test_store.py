"""Keys in a real PostgreSQL: what a change leaves behind, and who can change what was written."""

import asyncio

import pytest

from headgate.core.keys import digest_of
from headgate.core.policy import Count, Per
from headgate.database.connection import connected
from headgate.identity.change_log import verify
from headgate.identity.changes import BrokenChainError, Head
from headgate.identity.follow import catch_up
from headgate.identity.keys import KeyRequest, KeyRuleError
from headgate.identity.limits import KeyLimit
from headgate.identity.ring import MemoryRing
from headgate.identity.store import KeyStore
from headgate.program.postgres.folder import OWNER
from tests.fakes import FakeClock
from tests.identity.builders import ALICE, BY, POLICY, store_of
from tests.postgres_server import PostgresServer

NARROW = KeyRequest(
    tenant="acme",
    user="okta:00u2",
    models=("tiny",),
    limits=(KeyLimit(Count.TOKENS, 1000, Per.DAY), KeyLimit(Count.CONCURRENT, 2)),
    labels={"cost_centre": "CC'; drop table x; --"},
    expires_s=1_800_000_600.5,
)


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.clean_database()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(postgres: PostgresServer, database: str, clock: FakeClock) -> KeyStore:
    return store_of(postgres.address(database), clock)


async def head_of(
    postgres: PostgresServer, database: str, known: Head | None = None, role: str = OWNER
) -> Head:
    async with connected(postgres.address(database, role)) as connection:
        return await verify(connection, known)


async def ring_of(postgres: PostgresServer, database: str, clock: FakeClock) -> MemoryRing:
    ring = MemoryRing(clock, 60.0)
    async with connected(postgres.address(database)) as connection:
        await catch_up(connection, ring, clock)
    return ring


async def test_an_issued_key_comes_back_as_it_was_asked_for(store: KeyStore) -> None:
    issued = await store.issue(NARROW, POLICY, BY)

    assert issued.key.request == NARROW
    assert await store.get(issued.key.id) == issued.key
    assert issued.secret.secret not in repr(issued)


async def test_the_secret_is_kept_nowhere(
    postgres: PostgresServer, database: str, store: KeyStore
) -> None:
    issued = await store.issue(ALICE, POLICY, BY)
    await store.rotate(issued.key.id, 60, BY)

    for table in ("api_key", "key_secret", "change", "person"):
        rows = postgres.run_as(OWNER, database, f"table headgate.{table}")
        assert rows
        assert issued.secret.secret[6:] not in str(rows)


async def test_a_tenant_s_keys_are_listed_page_by_page(store: KeyStore) -> None:
    issued = [(await store.issue(ALICE, POLICY, BY)).key.id for _ in range(5)]
    await store.issue(KeyRequest(tenant="globex", user="bob"), POLICY, BY)

    pages: list[list[str]] = [[]]
    while page := await store.list("acme", after=pages[-1][-1] if pages[-1] else "", limit=2):
        pages.append([key.id for key in page])

    assert [len(page) for page in pages[1:]] == [2, 2, 1]
    assert [key for page in pages for key in page] == sorted(issued)


async def test_a_refused_change_leaves_no_trace(
    postgres: PostgresServer, database: str, store: KeyStore, clock: FakeClock
) -> None:
    issued = await store.issue(ALICE, POLICY, BY)
    await store.revoke(issued.key.id, BY)
    for change in (
        store.issue(KeyRequest(tenant="nobody", user="x"), POLICY, BY),
        store.rotate(issued.key.id, 60, BY),
        store.revoke("~unknown", BY),
    ):
        with pytest.raises(KeyRuleError):
            await change

    assert (await head_of(postgres, database)).number == 2


async def test_each_change_has_its_row_with_who_when_where_before_and_after(
    postgres: PostgresServer, database: str, store: KeyStore, clock: FakeClock
) -> None:
    issued = await store.issue(NARROW, POLICY, BY)
    clock.advance(1)
    await store.rotate(issued.key.id, 60, BY)
    clock.advance(1)
    await store.revoke(issued.key.id, BY)

    rows = postgres.run_as(
        OWNER,
        database,
        "select c.action, c.object, p.name, c.origin, extract(epoch from c.at)::int, c.before,"
        " c.after from headgate.change c join headgate.person p on p.id = c.actor_id order by 1",
    )
    assert [row[0] for row in rows] == ["key.issue", "key.revoke", "key.rotate"]
    assert {row[1:4] for row in rows} == {(issued.key.id, BY.name, BY.origin)}
    assert [row[4] - 1_800_000_000 for row in rows] == [0, 2, 1]
    assert rows[0][6]["labels"] == dict(NARROW.labels)
    assert rows[1][5:7] == ({"revoked_s": None}, {"revoked_s": "1800000002.0"})
    assert rows[2][5] == {"secrets": [issued.secret.digest.hex()[:12]]}


async def test_a_name_can_be_taken_away_and_the_log_stays_whole(
    postgres: PostgresServer, database: str, store: KeyStore
) -> None:
    await store.issue(NARROW, POLICY, BY)
    postgres.run_as(OWNER, database, "update headgate.person set name = 'gone-' || id")

    rows = postgres.run_as(OWNER, database, "select c::text from headgate.change c")
    assert (await head_of(postgres, database)).number == 1
    assert BY.name not in str(rows)
    assert NARROW.user not in str(rows)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ("update headgate.change set origin = 'x' where number = 2", "change 2: was edited"),
        ("update headgate.change set at = at + '1 us' where number = 1", "change 1: was edited"),
        ("update headgate.change set after = '{}' where number = 3", "change 3: was edited"),
        ("delete from headgate.change where number = 2", "change 2: is missing"),
        ("delete from headgate.change where number = 3", "change 3: is missing"),
        ("truncate headgate.change", "change 1: is missing"),
    ],
)
async def test_any_edit_by_the_owner_is_found(
    postgres: PostgresServer, database: str, store: KeyStore, edit: str, problem: str
) -> None:
    issued = await store.issue(NARROW, POLICY, BY)
    await store.rotate(issued.key.id, 60.5, BY)
    await store.revoke(issued.key.id, BY)
    assert (await head_of(postgres, database)).number == 3

    postgres.run_as(OWNER, database, edit)

    with pytest.raises(BrokenChainError, match=problem):
        await head_of(postgres, database)


async def test_changes_at_once_are_all_kept_in_one_order(
    postgres: PostgresServer, database: str, store: KeyStore
) -> None:
    issued = await asyncio.gather(*(store.issue(ALICE, POLICY, BY) for _ in range(12)))

    assert len({one.key.id for one in issued}) == 12
    assert (await head_of(postgres, database)).number == 12


async def test_a_rotated_key_has_both_secrets_until_the_overlap_ends(
    postgres: PostgresServer, database: str, store: KeyStore, clock: FakeClock
) -> None:
    old = await store.issue(ALICE, POLICY, BY)
    new = await store.rotate(old.key.id, 60, BY)

    ring = await ring_of(postgres, database, clock)
    assert ring.find(old.secret.digest) == ring.find(new.secret.digest) is not None

    clock.advance(60)
    ring = await ring_of(postgres, database, clock)
    assert ring.find(old.secret.digest) is None
    assert ring.find(new.secret.digest) is not None


async def test_last_used_only_moves_forward_and_changes_no_generation(
    postgres: PostgresServer, database: str, store: KeyStore, clock: FakeClock
) -> None:
    key = (await store.issue(ALICE, POLICY, BY)).key

    await store.note_used({key.id: clock.now_s() + 5, "~unknown": clock.now_s()})
    await store.note_used({key.id: clock.now_s()})

    assert (await store.get(key.id)).last_used_s == clock.now_s() + 5
    assert (await head_of(postgres, database)).number == 1


@pytest.mark.parametrize("text", ["'; drop table headgate.api_key; --", "a\r\nx-admin: 1", "%s"])
async def test_what_people_write_is_never_part_of_a_statement(store: KeyStore, text: str) -> None:
    with pytest.raises(KeyRuleError, match="user"):
        await store.issue(KeyRequest(tenant="acme", user=text), POLICY, BY)
    with pytest.raises(KeyRuleError, match="there is no key"):
        await store.get(text)
    assert await store.list(text) == []


async def test_the_digest_of_a_secret_is_the_one_of_the_policy_file(store: KeyStore) -> None:
    issued = await store.issue(ALICE, POLICY, BY)

    assert digest_of(issued.secret.secret) == issued.secret.digest
