"""How many records a second does the ledger add, and how fast does a search find them?"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psycopg
from prometheus_client import CollectorRegistry

from accesslog.spool import SpoolWriter
from bench.measure import Durations, timed
from bench.table import Table
from headgate.core.clock import SystemClock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.database.address import database_address
from headgate.database.connection import Connection, connected
from headgate.ledger.conditions import Condition, Scope, resolved
from headgate.ledger.follow import SpoolFollower
from headgate.ledger.search import place_of, search, statement
from headgate.program.postgres.folder import OWNER
from headgate.program.postgres.server import Postgres, running_postgres
from tests.ledger.builders import line

RECORDS = 100_000
ROUNDS = 3
ROWS = int(os.environ.get("ROWS", "1000000"))
_POLICY = CompiledPolicy({}, {}, {})
_ASKS = 200
_PAGE = 100
_MONTHS = range(1, 11)
_BEGIN = (
    "create table headgate.{name}"
    " (like headgate.usage_record including defaults including constraints)"
)
_FILL = """
insert into headgate.{name} (ended_at, started_at, duration_us, ingest_id, schema, flags,
  request_id, tenant, key, model, api, person_id, status, "limit", ip, prompt_tokens,
  completion_tokens, cost_nanos, user_agent, path, pod)
select at, at - interval '1 s', 1000000, 1, 2, '{{}}', md5(n::text), 'tenant-' || n % 50,
  '~' || lpad(to_hex(n % 5000), 16, '0'), 'model-' || n % 20, 'chat', p.ids[1 + n % 5000],
  case when n % 100 < 97 then 200 else 429 end,
  case when n % 100 >= 97 then 'tenant tenant-' || n % 50 || ' tokens per day' end,
  inet '10.0.0.0' + n % 20000, n % 4000, n % 800, n % 100000, 'openai-python',
  '/v1/chat/completions', '10.1.0.1:8000'
from (select n, {begin} + (n - {first})::float8 / {count} * ({end} - {begin}) as at
  from generate_series({first}, {first} + {count} - 1) n) one,
  (select array_agg(id order by length(name), name) as ids from headgate.person) p
"""
_ATTACH = (
    "alter table headgate.{name} add primary key (request_id, ended_at)",
    *(
        f"create index on headgate.{{name}} ({columns})"
        for columns in (
            "ended_at",
            "tenant, ended_at",
            "person_id, ended_at",
            "key, ended_at",
            "model, ended_at",
            "ip, ended_at",
        )
    ),
    "create index on headgate.{name} (status, ended_at) where status is null or status >= 400",
    'create index on headgate.{name} ("limit", ended_at) where "limit" is not null',
    "alter table headgate.usage_record attach partition headgate.{name}"
    " for values from ({begin}) to ({end})",
    "vacuum analyze headgate.{name}",
)
"""Indexes are built once a month is full, which takes a fraction of the time. Attaching finds them
equal to those of the ledger, and makes no other."""
_PEOPLE = "insert into headgate.person (name) select 'user-' || n from generate_series(1, 5000) n"
_TOGETHER = 4
"""Months that are filled at the same time, each on a processor of the server."""


@asynccontextmanager
async def _server() -> AsyncIterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as name:
        os.chmod(name, 0o711)  # noqa: S103 - the server may run as another user
        async with running_postgres(Path(name) / "db") as server:
            yield server


async def ingest() -> list[Table]:
    """Adds records of a spool, in rounds."""
    rows = []
    async with _server() as server:
        for number in range(ROUNDS):
            with tempfile.TemporaryDirectory(prefix="hg-bench-") as name:
                _write(Path(name), number * RECORDS)
                rows.append(await _followed(server, Path(name)))
    columns = (
        "records", "a second", "CPU here, us a record", "CPU of PostgreSQL, us a record",
        "load of the machine",
    )  # fmt: skip
    return [Table("Records from the spool into the ledger", columns, rows, _INGEST_NOTE)]


async def _followed(server: Postgres, spool: Path) -> tuple[Any, ...]:
    address, clock = database_address(server.url), SystemClock()
    connect, metrics = partial(connected, address), Metrics(CollectorRegistry(), clock)
    follower = SpoolFollower(connect, spool, lambda: _POLICY, clock, metrics)
    async with connected(address) as connection:
        theirs_s, ours_s, start_s = cpu_of_server_s(server), process_time(), perf_counter()
        await follower.catch_up(connection)
        passed_s = perf_counter() - start_s
        ours_us = (process_time() - ours_s) / RECORDS * 1e6
        theirs_us = (cpu_of_server_s(server) - theirs_s) / RECORDS * 1e6
    return RECORDS, RECORDS / passed_s, ours_us, theirs_us, os.getloadavg()[0]


def cpu_of_server_s(server: Postgres) -> float:
    """The processor time of a PostgreSQL so far: of its main process, and of its children."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        is_main = process.name == str(server.process.pid)
        if is_main or fields[1] == str(server.process.pid):
            ticks += sum(map(int, fields[11 : 15 if is_main else 13]))  # proc(5): utime to cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def _write(folder: Path, first: int) -> None:
    writer = SpoolWriter(folder, 10**10)
    for begin in range(first, first + RECORDS, 1_000):
        writer.append(b"".join(line(number) for number in range(begin, begin + 1_000)))
    writer.close()


async def find() -> list[Table]:
    """Asks a ledger of ROWS rows, first page and a late one, and prints the plans."""
    async with _server() as server:
        await asyncio.to_thread(_fill, server.folder.url(OWNER))
        async with connected(database_address(server.url)) as connection:
            rows = [await _asked(connection, name, one) for name, one in _SEARCHES.items()]
    columns = ("search", "rows", "first page, median", "first page, p95", "tenth page, p95")
    title = f"Searches of a ledger of {ROWS:,} records"
    return [Table(title, columns, rows, _FIND_NOTE)]


def _fill(url: str) -> None:
    """Builds the months side by side, in the server alone: no row passes through Python."""
    start_s = perf_counter()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_PEOPLE.encode())
    with ThreadPoolExecutor(min(_TOGETHER, os.cpu_count() or 1)) as threads:
        list(threads.map(partial(_fill_month, url), _MONTHS))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("analyze headgate.usage_record")
        size = connection.execute("select pg_size_pretty(pg_database_size(current_database()))")
        [text] = size.fetchone() or [""]
    print(f"{ROWS:,} records, {text}, built in {perf_counter() - start_s:.0f} s\n", flush=True)


def _fill_month(url: str, month: int) -> None:
    count = ROWS // len(_MONTHS)
    parts = {
        "name": f"usage_record_2026_{month:02}",
        "begin": f"timestamptz '2026-{month:02}-01 00:00:00Z'",
        "end": f"timestamptz '2026-{month + 1:02}-01 00:00:00Z'",
        "first": month * count,
        "count": count,
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set maintenance_work_mem = '512MB'")
        for statement_ in (_BEGIN, _FILL, *_ATTACH):
            connection.execute(statement_.format(**parts).encode())


async def _asked(connection: Connection, name: str, wanted: list[Condition]) -> tuple[Any, ...]:
    print(f"{name}\n{await _plan(connection, wanted)}\n", flush=True)
    first, late, found = Durations(), Durations(), 0
    for _ in range(_ASKS):
        lines = await timed(search(connection, _ALL, wanted, None, _PAGE), first)
        found = len(lines)
    place = None
    for _ in range(9):
        lines = await search(connection, _ALL, wanted, place, _PAGE)
        place = place_of(lines[-1]) if lines else place
    for _ in range(_ASKS):
        await timed(search(connection, _ALL, wanted, place, _PAGE), late)
    return name, found, first.median_s, first.at(0.95), late.at(0.95)


async def _plan(connection: Connection, wanted: list[Condition]) -> str:
    scope, conditions = await resolved(connection, _ALL, wanted)
    query, values = statement(scope, conditions, None, _PAGE)
    cursor = await connection.execute(f"explain (analyze, buffers, costs off) {query}", values)
    return "\n".join(row for (row,) in await cursor.fetchall() if "never executed" not in row)


def _by(**values: object) -> list[Condition]:
    return [Condition(field, value) for field, value in values.items()]


_ALL = Scope(sees_all=True)
_SEARCHES = {
    "newest of all": _by(),
    "a tenant": _by(tenant="tenant-7"),
    "a user": _by(user="user-77"),
    "a user in their tenant": _by(tenant="tenant-26", user="user-77"),
    "a key": _by(key="~0000000000000077"),
    "a model of a tenant": _by(tenant="tenant-7", model="model-7"),
    "an address": _by(ip=ip_address("10.0.0.77")),
    "status 429 of a tenant": _by(tenant="tenant-48", status=429),
    "a status that is nowhere": _by(tenant="tenant-7", status=418),
    "a limit": _by(limit="tenant tenant-48 tokens per day"),
    "an id that is nowhere": _by(id="none"),
    "a tenant's March": _by(
        tenant="tenant-7",
        since=datetime(2026, 3, 1, tzinfo=UTC),
        until=datetime(2026, 4, 1, tzinfo=UTC),
    ),
}
_INGEST_NOTE = (
    "PostgreSQL and the program share the machine. Its files are synced, as in use. The rate falls"
    " with the load of other programs; the processor time of a record hardly does."
)
_FIND_NOTE = f"A page has {_PAGE} rows. Seconds from the question to the rows, in one process."
