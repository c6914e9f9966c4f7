"""Any order, duplication, loss and redelivery of records gives the same ledger."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.database.address import DatabaseAddress
from headgate.database.connection import connected
from headgate.ledger.feeding import Fed, Line, feed, read
from headgate.ledger.store import Position, open_import
from tests.ledger.builders import ledger, line
from tests.postgres_server import PostgresServer

REQUESTS = 12
EACH_ONCE = list(range(REQUESTS))
Batches = list[list[int]]


def never_bad(behind: Position, why: str) -> None:
    raise AssertionError(f"{behind}: {why}")


async def deliver(address: DatabaseAddress, batches: Batches) -> Fed:
    """Adds the records of the numbers, batch by batch; the replica that wrote each differs."""
    total, at = Fed(), 0
    async with connected(address) as connection:
        run = await open_import(connection, "test")
        for batch in batches:
            lines: Sequence[Line] = [
                read(line(number, replica="one"), Position(1, at + index), never_bad)
                for index, number in enumerate(batch, 1)
            ]
            total += await feed(connection, run, Position(1 if at else 0, at), lines, never_bad)
            at += len(batch)
    return total


@st.composite
def deliveries(draw: st.DrawFn) -> Batches:
    """Each record at least once, some again, in any order and in batches of any size."""
    numbers = draw(st.permutations(EACH_ONCE + draw(st.lists(st.sampled_from(EACH_ONCE)))))
    batches: Batches = [[]]
    for number in numbers:
        if batches[-1] and draw(st.booleans()):
            batches.append([])
        batches[-1].append(number)
    return batches


@settings(max_examples=25)
@given(batches=deliveries())
def test_the_ledger_is_that_of_one_delivery_in_order(
    postgres: PostgresServer, batches: Batches
) -> None:
    async def compare() -> None:
        postgres.clean_database()
        address = postgres.address("clean")
        await deliver(address, [EACH_ONCE])
        expected = await ledger(postgres)

        postgres.clean_database()
        fed = await deliver(address, batches)

        assert await ledger(postgres) == expected
        assert fed == Fed(REQUESTS, sum(map(len, batches)) - REQUESTS, 0)

    asyncio.run(compare())


@settings(max_examples=15)
@given(kept=st.lists(st.sampled_from(EACH_ONCE), unique=True, min_size=1), batches=deliveries())
def test_what_was_lost_is_there_after_it_was_delivered_again(
    postgres: PostgresServer, kept: list[int], batches: Batches
) -> None:
    async def compare() -> None:
        postgres.clean_database()
        address = postgres.address("clean")
        await deliver(address, [kept])
        assert len(await ledger(postgres)) == len(kept)

        fed = await deliver(address, batches)

        assert fed.added == REQUESTS - len(kept)
        assert len(await ledger(postgres)) == REQUESTS

    asyncio.run(compare())
