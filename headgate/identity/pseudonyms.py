"""Takes a person's names away. Their requests and changes stay under the id, so no sum changes."""

from headgate.core.clock import Clock
from headgate.database.connection import Connection
from headgate.identity.change_log import Actor, recorded
from headgate.identity.keys import KeyRuleError, check_user

_FIND = "select id::text from headgate.person where name = %s for update"
_HOLDS = """
select
  exists (select from headgate.api_key k where k.person_id = %(id)s and k.revoked_at is null
    and (k.expires_at is null or k.expires_at > now())),
  exists (select from headgate.blocked_user b where b.person_id = %(id)s
    and b.blocked_at is not null),
  exists (select from headgate.revocation r where r.person_id = %(id)s and r.lifted_at is null)
"""
_END_SESSIONS = "delete from headgate.browser_session where person_id = %s"
_RENAME = "update headgate.person set name = %s, display_name = '' where id = %s"
_HELD = (
    "has keys: revoke them first",
    "is blocked: lift the block first, as it holds by the name",
    "has revoked tokens: lift the revocation first, as it holds by the name",
)


async def pseudonymise(connection: Connection, clock: Clock, user: str, by: Actor) -> str:
    """Gives a person a name that says nothing, clears the display name, and returns the new name.

    Their sessions in a browser end, as these go by the person and would go on under the new name.

    Raises KeyRuleError for an unknown user, and for one whose keys, block or revocation still hold.
    The change log has the person's id alone.
    """
    check_user(user)
    async with recorded(connection, by, clock) as recorder:
        found = await (await connection.execute(_FIND, (user,))).fetchone()
        if found is None:
            raise KeyRuleError("user", "the database knows no such user")
        [person] = found
        holds = await (await connection.execute(_HOLDS, {"id": person})).fetchone()
        assert holds is not None, "a select of values has one row"  # noqa: S101
        for is_held, why in zip(holds, _HELD, strict=True):
            if is_held:
                raise KeyRuleError("user", f"the user {why}")
        name = f"gone-{person}"
        await recorder.write("user.pseudonymise", person, None, {"person": person})
        await connection.execute(_END_SESSIONS, (person,))
        await connection.execute(_RENAME, (name, person))
    return name
