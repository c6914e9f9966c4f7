"""Sessions of people in a browser, in the database. No row holds the cookie, only its digest."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from headgate.core.clock import Clock
from headgate.core.issuers import Person, Role
from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.identity.change_log import moment, person_id

IDLE_S = 3600.0
"""A session ends when no request comes for so long."""
LONGEST_S = 12 * 3600.0
"""A session ends so long after its login, whatever comes."""
_SEEN_EVERY_S = 60.0
"""A row is written at most so often, not with each request."""

_INSERT = """
insert into headgate.browser_session
  (digest, person_id, issuer, entry_digest, roles, token_id, token_issued_at, created_at, seen_at)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_DELETE_ENDED = "delete from headgate.browser_session where seen_at <= %s or created_at <= %s"
_DELETE = "delete from headgate.browser_session where digest = %s"
_GET = """
select p.name, p.display_name, s.issuer, s.entry_digest, s.roles, s.token_id,
  extract(epoch from s.token_issued_at)::float8, extract(epoch from s.seen_at)::float8
from headgate.browser_session s join headgate.person p on p.id = s.person_id
where s.digest = %s and s.seen_at > %s and s.created_at > %s
"""
_SEEN = "update headgate.browser_session set seen_at = %s where digest = %s"


@dataclass(frozen=True, slots=True)
class Session:
    """A person who has logged in. `entry_digest` is that of the setting that let them in."""

    person: Person
    entry_digest: bytes


class SessionStore:
    """Keeps the sessions. Every method raises DatabaseAwayError. `digest` is that of the cookie."""

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[Connection]], clock: Clock
    ) -> None:
        self._connect = connect
        self._clock = clock

    async def open(self, digest: bytes, session: Session) -> None:
        """Begins a session, and removes all that have ended."""
        now_s, person = self._clock.now_s(), session.person

        async def add(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(_DELETE_ENDED, _bounds(now_s))
                values = (
                    digest,
                    await person_id(connection, person.user, person.display_name),
                    person.issuer,
                    session.entry_digest,
                    Jsonb(dict(person.tenants)),
                    person.token_id,
                    moment(person.issued_s),
                    moment(now_s),
                    moment(now_s),
                )
                await connection.execute(_INSERT, values)

        async with self._connect() as connection:
            await within(DEADLINE_S, connection, add(connection))

    async def get(self, digest: bytes) -> Session | None:
        """The session, which a request has just used; None if there is none or it has ended."""
        now_s = self._clock.now_s()

        async def read(connection: Connection) -> Session | None:
            row = await (await connection.execute(_GET, (digest, *_bounds(now_s)))).fetchone()
            if row is None:
                return None
            *values, seen_s = row
            if now_s - seen_s >= _SEEN_EVERY_S:
                await connection.execute(_SEEN, (moment(now_s), digest))
            return _session(values)

        async with self._connect() as connection:
            return await within(DEADLINE_S, connection, read(connection))

    async def end(self, digest: bytes) -> None:
        """Ends a session, if there is one."""
        async with self._connect() as connection:
            await within(DEADLINE_S, connection, connection.execute(_DELETE, (digest,)))


def _bounds(now_s: float) -> tuple[object, object]:
    """Before these times a session was used last, or began, if it has ended."""
    return moment(now_s - IDLE_S), moment(now_s - LONGEST_S)


def _session(values: list[Any]) -> Session:
    name, display_name, issuer, entry_digest, roles, token_id, issued_s = values
    person = Person(
        issuer=issuer,
        subject=name.partition(":")[2],
        user=name,
        tenants={tenant: Role(role) for tenant, role in roles.items()},
        display_name=display_name,
        token_id=token_id,
        issued_s=issued_s,
    )
    return Session(person, bytes(entry_digest))
