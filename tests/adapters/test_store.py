"""Adapters in a real PostgreSQL: their life, their row in the change log, and who follows them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from headgate.adapters.reading import FollowedAdapters
from headgate.adapters.registry import MemoryRegistry
from headgate.adapters.rules import AdapterRequest, AdapterRuleError
from headgate.adapters.store import AdapterStore
from headgate.adapters.uses import UseNotes
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.database.address import DatabaseAddress
from headgate.database.connection import Connection
from headgate.identity.change_log import verify
from headgate.identity.follow import KeyFollower, catch_up
from headgate.identity.read_log import changes_after
from headgate.identity.ring import MemoryRing
from tests.identity.builders import BY, POLICY, connect_to, until

CLOCK = SystemClock()
SQL = AdapterRequest(name="acme-sql", tenant="acme", base="tiny", source="acme/sql-7")


def store_of(address: DatabaseAddress) -> AdapterStore:
    return AdapterStore(connect_to(address), CLOCK)


async def test_the_first_version_has_all_of_the_weight_and_the_next_one_none(
    address: DatabaseAddress,
) -> None:
    store = store_of(address)
    await store.register(SQL, POLICY, BY)
    await store.register(replace(SQL, source="acme/sql-8"), POLICY, BY)
    kept = await store.get("acme-sql")
    assert kept.weights == {1: 100, 2: 0}
    assert [(one.number, one.source) for one in kept.versions] == [
        (1, "acme/sql-7"),
        (2, "acme/sql-8"),
    ]


async def test_weights_move_in_one_step_and_a_version_with_weight_stays(
    address: DatabaseAddress,
) -> None:
    store = store_of(address)
    await store.register(SQL, POLICY, BY)
    await store.register(SQL, POLICY, BY)
    with pytest.raises(AdapterRuleError, match="it has a weight"):
        await store.withdraw("acme-sql", 1, BY)
    with pytest.raises(AdapterRuleError, match="do not add up"):
        await store.edit("acme-sql", POLICY, BY, weights={1: 50, 2: 40})
    await store.edit("acme-sql", POLICY, BY, weights={2: 100})
    kept = await store.withdraw("acme-sql", 1, BY)
    assert kept.weights == {2: 100}
    assert (await store.get("acme-sql")).versions[0].withdrawn_s is not None


async def test_each_change_has_its_row_in_the_log_which_stays_whole(
    address: DatabaseAddress,
) -> None:
    store = store_of(address)
    await store.register(SQL, POLICY, BY)
    await store.edit("acme-sql", POLICY, BY, shared_with=["globex"], copies=2)
    await store.remove("acme-sql", BY)
    async with connect_to(address)() as connection:
        changes = await changes_after(connection, 0, 10, "acme")
        assert [one.change.action for one in changes] == [
            "adapter.register",
            "adapter.edit",
            "adapter.remove",
        ]
        assert {one.change.object for one in changes} == {"acme/adapter/acme-sql"}
        assert (await verify(connection)).number == 3


async def test_a_removed_name_is_never_given_again(address: DatabaseAddress) -> None:
    store = store_of(address)
    await store.register(SQL, POLICY, BY)
    await store.remove("acme-sql", BY)
    with pytest.raises(AdapterRuleError, match="it was removed"):
        await store.register(SQL, POLICY, BY)
    assert await store.page(None) == []


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("name", {"name": "../sql"}),
        ("name", {"name": "a..b"}),
        ("name", {"name": "acme-sql@7"}),
        ("name", {"name": "tiny"}),
        ("base", {"base": "none"}),
        ("source", {"source": "../elsewhere"}),
        ("source", {"source": "http://169.254.169.254/latest"}),
        ("copies", {"copies": 0}),
        ("tenant", {"tenant": "nobody"}),
        ("tenant", {"shared_with": ("nobody",)}),
    ],
)
async def test_a_registration_that_breaks_a_rule_names_the_field(
    address: DatabaseAddress, field: str, changed: dict[str, object]
) -> None:
    with pytest.raises(AdapterRuleError) as caught:
        await store_of(address).register(replace(SQL, **changed), POLICY, BY)  # type: ignore[arg-type]
    assert caught.value.field == field


async def test_another_tenant_cannot_take_the_name(address: DatabaseAddress) -> None:
    store = store_of(address)
    await store.register(SQL, POLICY, BY)
    with pytest.raises(AdapterRuleError, match="taken"):
        await store.register(replace(SQL, tenant="globex"), POLICY, BY)


async def test_a_tenant_lists_its_own_and_what_is_shared_with_it(address: DatabaseAddress) -> None:
    store = store_of(address)
    await store.register(SQL, POLICY, BY)
    await store.register(replace(SQL, name="law", shared_with=("globex",)), POLICY, BY)
    assert [one.name for one in await store.page("globex")] == ["law"]
    assert [one.name for one in await store.page("acme")] == ["acme-sql", "law"]
    assert [one.name for one in await store.page(None, after="acme-sql")] == ["law"]


async def test_replicas_learn_of_changes_by_the_polls_of_the_keys(address: DatabaseAddress) -> None:
    store, registry = store_of(address), MemoryRegistry()
    metrics = Metrics(CollectorRegistry(), CLOCK)
    others = [FollowedAdapters(registry)]
    ring = MemoryRing(CLOCK, 60.0)
    async with KeyFollower(connect_to(address), ring, None, CLOCK, metrics, others=others):
        assert registry.find("acme-sql", "acme") is None
        await store.register(SQL, POLICY, BY)
        await until(lambda: registry.find("acme-sql", "acme"))
        await store.edit("acme-sql", POLICY, BY, shared_with=["globex"])
        await until(lambda: registry.find("acme-sql", "globex"))
        await store.remove("acme-sql", BY)
        await until(lambda: registry.find("acme-sql", "acme") is None)


async def test_places_are_read_again_only_when_one_has_changed(address: DatabaseAddress) -> None:
    registry, ring = MemoryRegistry(), MemoryRing(CLOCK, 60.0)
    others = [FollowedAdapters(registry)]
    async with connect_to(address)() as connection:
        await catch_up(connection, ring, CLOCK, others)
        await connection.execute(
            "insert into headgate.adapter_place (pod, version, step, is_open, changed_at)"
            " values ('10.0.0.1:8000', 'acme-sql@1', 'loaded', true, now())"
        )
        await catch_up(connection, ring, CLOCK, others)
        assert registry.pods_of("acme-sql@1") == ()
        await connection.execute("update headgate.adapter_place_round set value = value + 1")
        await catch_up(connection, ring, CLOCK, others)
        assert registry.pods_of("acme-sql@1") == ("10.0.0.1:8000",)


async def test_uses_of_two_replicas_add_up_and_unknown_names_are_left_out(
    address: DatabaseAddress,
) -> None:
    store, registry, ring = store_of(address), MemoryRegistry(), MemoryRing(CLOCK, 60.0)
    await store.register(SQL, POLICY, BY)
    async with connect_to(address)() as connection:
        await catch_up(connection, ring, CLOCK, [FollowedAdapters(registry)])
        first, second = (UseNotes(connect_to(address), registry, one, CLOCK) for one in "ab")
        for _ in range(3):
            first.began("acme-sql@1")
        first.began("lora-of-the-policy")
        await first.write()
        second.ended("acme-sql@1")
        first.ended("acme-sql@1")
        await first.write()
        await second.write()
        cursor = await connection.execute(
            "select version, sum(began)::int, sum(ended)::int from headgate.adapter_use group by 1"
        )
        assert await cursor.fetchall() == [("acme-sql@1", 3, 2)]


async def test_what_is_counted_is_noted_although_the_notes_end_while_they_write(
    address: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.adapters.uses.EVERY_S", 0.0)
    registry, ring = MemoryRegistry(), MemoryRing(CLOCK, 60.0)
    await store_of(address).register(SQL, POLICY, BY)
    connecting = asyncio.Event()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        connecting.set()
        async with connect_to(address)() as connection:
            yield connection

    async with connect_to(address)() as connection:
        await catch_up(connection, ring, CLOCK, [FollowedAdapters(registry)])
        async with UseNotes(connect, registry, "a", CLOCK) as notes:
            notes.began("acme-sql@1")
            await connecting.wait()
        cursor = await connection.execute("select sum(began)::int from headgate.adapter_use")
        assert await cursor.fetchall() == [(1,)]
