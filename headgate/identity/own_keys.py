"""A user's own keys in the database: what the data port lists, issues and revokes for them."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

import msgspec

from extproc.own_keys import NO_SUCH_KEY
from extproc.types import KeyAction, KeyCall
from headgate.core.clock import Clock
from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import DatabaseAwayError
from headgate.identity.change_log import Actor
from headgate.identity.keys import Key, KeyRequest, KeyRuleError
from headgate.identity.store import KeyStore

ORIGIN = "data port"
NAME_LABEL = "name"
_MOST_LISTED = 1000
_HOUR_S = 3600.0
_AWAY = ApiError(
    Refusal.UNAVAILABLE, "The database of keys is away. List your keys before you repeat this."
)

log = logging.getLogger("headgate.identity")


class OwnKeys:
    """Answers calls that `extproc.own_keys` has allowed. Every key is its caller's own."""

    def __init__(self, store: KeyStore, policy: Callable[[], CompiledPolicy], clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock

    async def __call__(self, call: KeyCall) -> bytes | ApiError:
        """The answer's JSON, or the refusal."""
        try:
            match call.action:
                case KeyAction.LIST:
                    return await self._list(call)
                case KeyAction.ISSUE:
                    return await self._issue(call)
                case KeyAction.REVOKE:
                    return await self._revoke(call)
        except DatabaseAwayError as error:
            log.error("the keys of a user cannot be reached: %s", error)
            return _AWAY
        except KeyRuleError as error:
            return ApiError(Refusal.BAD_REQUEST, f"The key is not possible: {error}.")

    async def _list(self, call: KeyCall) -> bytes:
        caller, now_s = call.caller, self._clock.now_s()
        found = await self._store.list(caller.tenant, "", _MOST_LISTED, caller.user)
        data = [_body(key) for key in found if key.is_live(now_s)]
        return msgspec.json.encode({"object": "list", "data": data})

    async def _issue(self, call: KeyCall) -> bytes:
        request = KeyRequest(
            tenant=call.caller.tenant,
            user=call.caller.user,
            models=call.models,
            labels={NAME_LABEL: call.name} if call.name else {},
            expires_s=self._clock.now_s() + call.hours * _HOUR_S,
        )
        issued = await self._store.issue(request, self._policy(), _actor(call), most=call.most)
        body = {**_body(issued.key), "secret": issued.secret.secret}
        return msgspec.json.encode(body)

    async def _revoke(self, call: KeyCall) -> bytes | ApiError:
        """Another user's key looks as if it did not exist."""
        try:
            key = await self._store.get(call.key)
        except KeyRuleError:
            return NO_SUCH_KEY
        owner = (key.request.tenant, key.request.user)
        if owner != (call.caller.tenant, call.caller.user) or not key.is_live(self._clock.now_s()):
            return NO_SUCH_KEY
        await self._store.revoke(key.id, _actor(call))
        return msgspec.json.encode({"object": "headgate.key", "id": key.id, "deleted": True})


def _actor(call: KeyCall) -> Actor:
    return Actor(call.caller.user, ORIGIN)


def _body(key: Key) -> dict[str, object]:
    request = key.request
    return {
        "object": "headgate.key",
        "id": key.id,
        "name": request.labels.get(NAME_LABEL),
        "models": None if request.models is None else sorted(request.models),
        "limits": [asdict(limit) for limit in request.limits],
        "created_at": _time(key.created_s),
        "expires_at": _time(request.expires_s),
        "last_used_at": _time(key.last_used_s),
    }


def _time(at_s: float | None) -> str | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC).isoformat()
