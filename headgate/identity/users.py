"""Users in the database: who is blocked, whose tokens are revoked, and what they are called.

Each change is one transaction with its row in the change log, as a change of a key is.
"""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from headgate.core.clock import Clock
from headgate.core.issuers import Person
from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.identity.change_log import Actor, moment, person_id, recorded
from headgate.identity.key_rows import text
from headgate.identity.keys import KeyRuleError, check_user

_BLOCKED = "select extract(epoch from blocked_at)::float8 from headgate.blocked_user"
_BLOCKED_ONE = _BLOCKED + " where tenant = %s and person_id = %s"
_PUT_BLOCK = """
insert into headgate.blocked_user (tenant, person_id, blocked_at, generation)
values (%s, %s, %s, %s)
on conflict (tenant, person_id)
  do update set blocked_at = excluded.blocked_at, generation = excluded.generation
"""
_PAGE = """
select p.name, p.display_name, extract(epoch from b.blocked_at)::float8
from headgate.person p left join headgate.blocked_user b
  on b.person_id = p.id and b.tenant = %s and b.blocked_at is not null
where p.name > %s collate "C" and (b.person_id is not null or exists (
  select 1 from headgate.api_key k where k.person_id = p.id and k.tenant = %s
)) order by p.name collate "C" limit %s
"""
_REVOCATION = """
select r.id, r.issuer, coalesce(p.name, ''), coalesce(r.token_id, ''),
  extract(epoch from r.issued_before)::float8, extract(epoch from r.created_at)::float8,
  extract(epoch from r.lifted_at)::float8
from headgate.revocation r left join headgate.person p on p.id = r.person_id
"""
_REVOCATIONS = _REVOCATION + "where r.id > %s order by r.id limit %s"
_REVOCATION_ONE = _REVOCATION + "where r.id = %s"
_REVOKE = """
insert into headgate.revocation
  (id, issuer, person_id, token_id, issued_before, created_at, generation)
values (%s, %s, %s, %s, %s, %s, %s)
"""
_LIFT = "update headgate.revocation set lifted_at = %s, generation = %s where id = %s"
_STANDING = """
select
  coalesce(array_agg(b.tenant) filter (where b.tenant is not null), '{}'),
  exists (
    select 1 from headgate.revocation r left join headgate.person o on o.id = r.person_id
    where r.lifted_at is null and r.issuer = %(issuer)s and (
      r.token_id = nullif(%(token)s, '')
      or (o.name = %(user)s and (r.issued_before is null or r.issued_before > %(issued)s))
    )
  )
from (select 1) one
  left join headgate.person p on p.name = %(user)s
  left join headgate.blocked_user b on b.person_id = p.id and b.blocked_at is not null
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """A user of a tenant who has keys at run time or is blocked.

    `display_name` is empty if it is not known. `blocked_s` is None unless the user is blocked.
    """

    name: str
    display_name: str = ""
    blocked_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensOf:
    """Tokens to revoke: all of a user, those from before a moment, or the one with this id.

    One of `user` and `token_id` (the claim `jti`) is empty.
    """

    issuer: str
    user: str = ""
    token_id: str = ""
    before_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A revocation as it is kept. `lifted_s` is None while it holds."""

    id: int
    tokens: TokensOf
    created_s: float
    lifted_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a token's person in the database."""

    blocked_in: frozenset[str] = frozenset()
    is_revoked: bool = False


class UserStore:
    """Reads and changes the users. Every method raises DatabaseAwayError, as `KeyStore` does."""

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[Connection]], clock: Clock
    ) -> None:
        self._connect = connect
        self._clock = clock

    async def block(self, tenant: str, user: str, by: Actor) -> User:
        """Refuses the user in the tenant, whatever key or token they show. Raises KeyRuleError."""
        return await self._put_block(tenant, user, by, blocks=True)

    async def unblock(self, tenant: str, user: str, by: Actor) -> User:
        """Lets the user in again. Raises KeyRuleError."""
        return await self._put_block(tenant, user, by, blocks=False)

    async def page(self, tenant: str, after: str, limit: int) -> list[User]:
        """At most `limit` users who have keys at run time or are blocked, after this name."""

        async def read(connection: Connection) -> list[User]:
            cursor = await connection.execute(_PAGE, (tenant, after, tenant, limit))
            return [User(*row) for row in await cursor.fetchall()]

        return await self._run(read)

    async def revoke(self, tokens: TokensOf, by: Actor) -> Revocation:
        """Makes tokens count no more. Raises KeyRuleError."""

        async def change(connection: Connection) -> Revocation:
            async with recorded(connection, by, self._clock) as recorder:
                person = await person_id(connection, tokens.user) if tokens.user else None
                made = Revocation(id=recorder.number, tokens=tokens, created_s=recorder.now_s)
                values = (
                    made.id,
                    tokens.issuer,
                    person,
                    tokens.token_id or None,
                    moment(tokens.before_s),
                    moment(made.created_s),
                    recorder.number,
                )
                await connection.execute(_REVOKE, values)
                after = {
                    "issuer": tokens.issuer,
                    "person": person,
                    "token_id": tokens.token_id or None,
                    "before_s": text(tokens.before_s),
                }
                await recorder.write("tokens.revoke", _revocation_object(made.id), None, after)
            return made

        if tokens.user:
            check_user(tokens.user)
        return await self._run(change)

    async def lift(self, id: int, by: Actor) -> Revocation:
        """Ends a revocation; one that has ended stays. Raises KeyRuleError for an unknown id."""

        async def change(connection: Connection) -> Revocation:
            async with recorded(connection, by, self._clock) as recorder:
                row = await (await connection.execute(_REVOCATION_ONE, (id,))).fetchone()
                if row is None:
                    raise KeyRuleError("revocation", f"there is no revocation {id}")
                old = _revocation(row)
                lifted_s = recorder.now_s if old.lifted_s is None else old.lifted_s
                await connection.execute(_LIFT, (moment(lifted_s), recorder.number, id))
                before, after = {"lifted_s": text(old.lifted_s)}, {"lifted_s": text(lifted_s)}
                await recorder.write("tokens.lift", _revocation_object(id), before, after)
            return Revocation(id=id, tokens=old.tokens, created_s=old.created_s, lifted_s=lifted_s)

        return await self._run(change)

    async def revocations(self, after: int, limit: int) -> list[Revocation]:
        """At most `limit` revocations after the one with this id, also those that were lifted."""

        async def read(connection: Connection) -> list[Revocation]:
            cursor = await connection.execute(_REVOCATIONS, (after, limit))
            return [_revocation(row) for row in await cursor.fetchall()]

        return await self._run(read)

    async def standing(self, person: Person) -> Standing:
        """Where the person is blocked, and whether their token is revoked."""
        values = {
            "issuer": person.issuer,
            "user": person.user,
            "token": person.token_id,
            "issued": moment(person.issued_s),
        }

        async def read(connection: Connection) -> Standing:
            row = await (await connection.execute(_STANDING, values)).fetchone()
            assert row is not None, "an aggregate has one row"  # noqa: S101
            return Standing(frozenset(row[0]), row[1])

        return await self._run(read)

    async def _put_block(self, tenant: str, user: str, by: Actor, *, blocks: bool) -> User:
        check_user(user)

        async def change(connection: Connection) -> User:
            async with recorded(connection, by, self._clock) as recorder:
                person = await person_id(connection, user)
                row = await (await connection.execute(_BLOCKED_ONE, (tenant, person))).fetchone()
                before_s = None if row is None else row[0]
                blocked_s = (before_s or recorder.now_s) if blocks else None
                values = (tenant, person, moment(blocked_s), recorder.number)
                await connection.execute(_PUT_BLOCK, values)
                await recorder.write(
                    "user.block" if blocks else "user.unblock",
                    f"{tenant}/{person}",
                    {"blocked_s": text(before_s)},
                    {"blocked_s": text(blocked_s), "person": person},
                )
            return User(user, blocked_s=blocked_s)

        return await self._run(change)

    async def _run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        async with self._connect() as connection:
            return await within(DEADLINE_S, connection, work(connection))


def _revocation_object(id: int) -> str:
    """Its name in the change log. No name of a tenant begins with this mark."""
    return f"~revocation/{id}"


def _revocation(row: tuple[Any, ...]) -> Revocation:
    id, issuer, user, token_id, before_s, created_s, lifted_s = row
    tokens = TokensOf(issuer=issuer, user=user, token_id=token_id, before_s=before_s)
    return Revocation(id=id, tokens=tokens, created_s=created_s, lifted_s=lifted_s)
