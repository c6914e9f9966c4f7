"""The handlers of users and of revoked tokens."""

from headgate.core.issuers import MAX_USER_CHARACTERS
from headgate.identity.users import TokensOf, User
from headgate.management.calls import LARGEST, Answer, Call, Page, whole_number
from headgate.management.problems import ProblemError
from headgate.management.records import NewRevocation, revocation_body, user_body


async def list_users(call: Call[None]) -> Answer:
    """A page of the users of the tenant's keys, of the file and at run time, and of the blocked."""
    after, limit = call.after, call.limit
    found = {user.name: user for user in await call.desk.users.page(call.tenant, after, limit)}
    for caller in call.policy.keys.values():
        if caller.tenant == call.tenant and caller.user > after:
            found.setdefault(caller.user, User(caller.user))
    names = sorted(found)[:limit]
    data = [user_body(found[name]) for name in names]
    return Answer(Page(data, names[-1] if len(names) == limit else None))


async def block_user(call: Call[None]) -> Answer:
    """The user of the path, who is refused from now on."""
    return Answer(user_body(await call.desk.users.block(call.tenant, call.path["user"], call.by)))


async def unblock_user(call: Call[None]) -> Answer:
    """The user of the path, who may call again."""
    return Answer(user_body(await call.desk.users.unblock(call.tenant, call.path["user"], call.by)))


async def list_revocations(call: Call[None]) -> Answer:
    """A page of the revocations, from the oldest on."""
    number = whole_number({"after": call.after}, "after", 1, LARGEST) if call.after else 0
    limit = call.limit
    found = await call.desk.users.revocations(number, limit)
    last = str(found[-1].id) if len(found) == limit else None
    return Answer(Page([revocation_body(one) for one in found], last))


async def revoke_tokens(call: Call[NewRevocation]) -> Answer:
    """The new revocation. Every replica honours it within a second."""
    return Answer(revocation_body(await call.desk.users.revoke(_tokens(call), call.by)))


async def lift_revocation(call: Call[None]) -> Answer:
    """The revocation of the path, which has ended."""
    id = whole_number(call.path, "revocation", 0, LARGEST)
    return Answer(revocation_body(await call.desk.users.lift(id, call.by)))


def _tokens(call: Call[NewRevocation]) -> TokensOf:
    """The tokens that a body names. Raises ProblemError."""
    body = call.body
    aliases = sorted(issuer.alias for issuer in call.policy.issuers.values())
    if (body.user is None) == (body.token_id is None):
        raise ProblemError(422, "name a user, or a token_id with its issuer", "user")
    if body.token_id is not None:
        is_plain = body.issuer in aliases and body.issued_before is None
        if not is_plain or not 1 <= len(body.token_id) <= MAX_USER_CHARACTERS:
            problem = f"goes with an issuer of the policy: {', '.join(aliases)}"
            raise ProblemError(422, problem, "token_id")
        return TokensOf(issuer=body.issuer or "", token_id=body.token_id)
    user = body.user or ""
    alias = user.partition(":")[0]
    if alias not in aliases or body.issuer not in (None, alias):
        known = ", ".join(f"{one}:..." for one in aliases)
        raise ProblemError(422, f"has no issuer of the policy; allowed: {known}", "user")
    before = body.issued_before
    if before is not None and before.tzinfo is None:
        raise ProblemError(422, "needs its zone, for example 2027-01-31T18:00:00Z", "issued_before")
    return TokensOf(
        issuer=alias, user=user, before_s=None if before is None else before.timestamp()
    )
