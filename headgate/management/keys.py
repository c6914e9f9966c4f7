"""The handlers of keys at run time."""

import hashlib
from typing import Any

from headgate.core.issuers import Role
from headgate.core.key_ring import RUN_TIME_MARK
from headgate.identity.keys import Key
from headgate.identity.store import IssuedKey, KeyExistsError
from headgate.management.calls import IDEMPOTENCY_KEY, Answer, Call, Page
from headgate.management.fields import MAX_OVERLAP_S
from headgate.management.problems import ProblemError
from headgate.management.records import (
    IssuedKeyBody,
    KeyEdit,
    NewKey,
    Rotation,
    key_body,
)
from headgate.management.rights import has_role


async def list_keys(call: Call[None]) -> Answer:
    """A page of the tenant's keys, or of the manager's own."""
    sees_all = has_role(call.manager, Role.FINANCE, call.tenant)
    user = None if sees_all else call.manager.name
    limit = call.limit
    found = await call.desk.store.list(call.tenant, call.after, limit, user)
    now_s = call.desk.clock.now_s()
    data = [key_body(key, now_s) for key in found]
    return Answer(Page(data, found[-1].id if len(found) == limit else None))


async def get_key(call: Call[None]) -> Answer:
    """The key of the path."""
    return _answer(call, call.the_key)


async def issue_key(call: Call[NewKey]) -> Answer:
    """A new key. A repeated Idempotency-Key gets the same key, without its secret."""
    try:
        request = call.body.request(call.tenant)
    except ValueError as error:
        raise ProblemError(422, str(error), "expires_at") from None
    try:
        issued = await call.desk.store.issue(request, call.policy, call.by, _chosen_id(call))
    except KeyExistsError as error:
        if error.key.request != request:
            problem = "was used for another key before; take a fresh one"
            raise ProblemError(422, problem, "Idempotency-Key") from None
        body = IssuedKeyBody(key=key_body(error.key, call.desk.clock.now_s()), secret=None)
        return Answer(body, error.key.version, status=200)
    return _issued(call, issued)


async def rotate_key(call: Call[Rotation]) -> Answer:
    """The key with a new secret."""
    overlap_s = call.body.overlap_s
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise ProblemError(422, f"must be from 0 to {MAX_OVERLAP_S} seconds", "overlap_s")
    return _issued(
        call, await call.desk.store.rotate(call.the_key.id, overlap_s, call.by, call.seen)
    )


async def revoke_key(call: Call[None]) -> Answer:
    """The key, which has ended."""
    return _answer(call, await call.desk.store.revoke(call.the_key.id, call.by, call.seen))


async def edit_key(call: Call[KeyEdit]) -> Answer:
    """The key with what is changed of it."""
    key, change = call.the_key, call.body.of
    try:
        change(key.request)
    except ValueError as error:
        raise ProblemError(422, str(error), "expires_at") from None
    changed = await call.desk.store.edit(key.id, change, call.policy, call.by, call.seen)
    return _answer(call, changed)


def _chosen_id(call: Call[NewKey]) -> str | None:
    """The id of a key under its Idempotency-Key. Another person or tenant gets another id."""
    text = call.headers.get("idempotency-key")
    if text is None:
        return None
    if IDEMPOTENCY_KEY.fullmatch(text) is None:
        problem = "must be 1 to 128 printable ASCII characters"
        raise ProblemError(400, problem, "Idempotency-Key")
    whole = "\0".join((call.manager.name, call.tenant, text))
    return RUN_TIME_MARK + hashlib.sha256(whole.encode()).hexdigest()[:16]


def _answer(call: Call[Any], key: Key) -> Answer:
    return Answer(key_body(key, call.desk.clock.now_s()), key.version)


def _issued(call: Call[Any], issued: IssuedKey) -> Answer:
    key = key_body(issued.key, call.desk.clock.now_s())
    return Answer(IssuedKeyBody(key=key, secret=issued.secret.secret), issued.key.version)
