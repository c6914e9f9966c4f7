"""Months for the tests of the report: a policy, believable records, and the ledger with them."""

import asyncio
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headgate.core.answer_cache import HIT_DETAILS
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import connected
from headgate.ledger.importing import Import, file_source
from headgate.ledger.price_list import put_prices
from headgate.ledger.showback.closed import check_closable, put_closed
from headgate.ledger.showback.month import read_statement
from headgate.ledger.showback.values import Closing, Statement
from headgate.policy import load_policy
from tests.fakes import FakeClock
from tests.ledger.builders import record
from tests.postgres_server import PostgresServer

POLICY_FILE = Path(__file__).with_name("policy.yaml")
AFTER = datetime(2026, 11, 3, tzinfo=UTC)
_FIRST = datetime(2026, 9, 30, 20, tzinfo=UTC)
_SOURCES = ("usage", "usage", "usage", "usage", "partial", "estimate", "refund", None)
_REFUSED = ((429, "tokens"), (401, None), (400, None), (503, None), (None, None), (200, None))


def policy() -> CompiledPolicy:
    return load_policy(POLICY_FILE)


def records(number: int, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Records around October 2026, of two tenants, with every source and every refusal."""
    chance = random.Random(seed)
    compiled = policy()
    step = timedelta(days=33) / number
    for at in range(number):
        started = _FIRST + at * step
        yield _record(chance, compiled, at, started)


def _record(
    chance: random.Random, compiled: CompiledPolicy, at: int, started: datetime
) -> dict[str, Any]:
    model = compiled.models[chance.choice(("large", "small", "tuned"))]
    tenant = "globex" if model.name != "tuned" and chance.random() < 0.3 else "acme"
    source = chance.choice(_SOURCES)
    is_billed = source in ("usage", "partial", "estimate")
    prompt, output = chance.randrange(1, 4000), chance.randrange(1, 900)
    is_hit = source == "usage" and chance.random() < 0.2
    cached = chance.randrange(prompt) if chance.random() < 0.5 and not is_hit else 0
    reasoning = chance.randrange(output) if model.name == "tuned" else 0
    duration_s = chance.randrange(1, 90_000_000) / 1_000_000
    price = model.prices.at(started.timestamp() + duration_s)
    nanos = price.prices.cost(prompt - cached, cached, output, reasoning=reasoning, requests=1)
    nanos = price.prices.cost_of_kept(prompt + output, 1) if is_hit else nanos
    status, limit = (200, None) if is_billed else chance.choice(_REFUSED)
    return record(
        at,
        time=f"{started:%Y-%m-%dT%H:%M:%S.%f}Z",
        duration_s=duration_s,
        tenant=tenant,
        user=f"user-{chance.randrange(40)}",
        model=model.name,
        base=model.base,
        source=source,
        status=status,
        limit=limit,
        prompt_tokens=prompt if is_billed else 0,
        cached_tokens=cached if is_billed else None,
        completion_tokens=output if is_billed else 0,
        reasoning_tokens=reasoning or None,
        cost=nanos / 10**9 if is_billed else 0,
        price_version=price.version,
        ended="complete" if is_billed and not is_hit else None,
        details=HIT_DETAILS if is_hit else "via_upstream",
        cache="hit" if is_hit else None,
    )


def written(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    with path.open("w") as file:
        file.writelines(json.dumps(one) + "\n" for one in lines)
    return path


async def put(server: PostgresServer, path: Path, database: str = "clean") -> None:
    """Adds a file of records to the ledger, and the prices of the policy."""
    address = server.address(database)

    def bad(source: str, line: int, why: str) -> None:
        raise AssertionError(f"{source}:{line}: {why}")

    work = Import(lambda: connected(address), FakeClock(0), 0, bad)
    await work.run([file_source(path, lambda _: None)])
    async with connected(address) as connection:
        await put_prices(connection, policy())


async def statement(
    server: PostgresServer, month: str = "2026-10", now: datetime = AFTER
) -> Statement:
    async with connected(server.address("clean")) as connection:
        async with asyncio.timeout(600):
            return await read_statement(connection, policy(), month, now)


async def close(server: PostgresServer, month: str = "2026-10", now: datetime = AFTER) -> Closing:
    """Closes a month in the name of the first person."""
    shown = await statement(server, month, now)
    async with connected(server.address("clean")) as connection:
        await check_closable(connection, shown.report, now)
        row = await (
            await connection.execute("select id::text from headgate.person order by name limit 1")
        ).fetchone()
        assert row is not None
        return await put_closed(connection, shown.report, row[0], now)
