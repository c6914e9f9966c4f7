"""Health: what each part says of itself now."""

from headgate.console.health import Database, Seen, loops, parts_of, worst
from headgate.console.visit import View, Visit
from headgate.core.samples import Samples, parse_samples
from headgate.database.connection import DEADLINE_S, Connection, DatabaseAwayError, within

_ASKED = "select current_setting('server_version'), pg_database_size(current_database())"


async def show(visit: Visit) -> View:
    """The state of every part. A part that is away makes no error of the page."""
    samples = parse_samples(await visit.surroundings.metrics())
    seen = Seen(
        samples=samples,
        envoy=await _envoy(visit),
        database=await _database(visit),
        issuers=list(visit.policy.issuers.values()),
        now_s=visit.desk.clock.now_s(),
    )
    parts = parts_of(seen)
    values = {
        "parts": parts,
        "worst": worst(parts),
        "troubled": [part for part in parts if part.kind in ("bad", "warn")],
        "loops": list(loops(samples)),
    }
    return View("health.html", values)


async def _envoy(visit: Visit) -> Samples | str | None:
    if visit.surroundings.envoy is None:
        return None
    text = await visit.surroundings.envoy()
    return "It does not answer." if text is None else parse_samples(text)


async def _database(visit: Visit) -> Database | str:
    begin_s = visit.desk.clock.monotonic_s()
    try:
        async with visit.desk.connect() as connection:
            version, size_bytes = await within(DEADLINE_S, connection, _said(connection))
    except DatabaseAwayError as error:
        return f"It does not answer: {error}"
    took_s = visit.desk.clock.monotonic_s() - begin_s
    return Database(version.partition(" ")[0], size_bytes, took_s)


async def _said(connection: Connection) -> tuple[str, int]:
    row = await (await connection.execute(_ASKED)).fetchone()
    assert row is not None  # noqa: S101 - it selects one row
    return row[0], row[1]
