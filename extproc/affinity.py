"""The requests that should meet the same pod: of a conversation, user, adapter or prompt. Pure.

No value of one tenant is that of another one, or two tenants could meet on purpose.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import TypeAlias

from extproc.types import Placing, Value
from headgate.core.apis import Api
from headgate.core.contract import RequestKey
from headgate.core.placement import Affinity
from headgate.core.policy import Caller, Model

Places: TypeAlias = Callable[[tuple[str, ...], Placing], tuple[str, ...]]
"""Chooses between the pods of a request: those to ask, each `IP:PORT`, the first one first.

Empty if none is known. The request counts as one in flight at the first, until the access log tells
its end.
"""


def no_places(_pods: tuple[str, ...], _placing: Placing) -> tuple[str, ...]:
    """Leaves the choice to Envoy."""
    return ()


def conversation(caller: Caller, values: Mapping[str, Value]) -> str:
    """The conversation that the client names, or else the user: all requests of a user are one.

    The name is hashed with the tenant. It may hold any text, and two tenants must not be able to
    choose the same conversation.
    """
    for name in (RequestKey.PROMPT_CACHE_KEY, RequestKey.SESSION):
        key = values.get(name)
        if isinstance(key, str) and key:
            return _hashed(caller.tenant, key)
    return caller.user


def affinity(caller: Caller, model: Model, values: Mapping[str, Value]) -> str:
    """The value that the requests of a tenant share that should meet the same pod."""
    match model.affinity:
        case Affinity.USER:
            return caller.user
        case Affinity.ADAPTER if model.adapter is not None:
            return _hashed(caller.tenant, f"adapter\0{model.adapter}")
        case Affinity.PROMPT:
            own, prompt = conversation(caller, values), _text(values, RequestKey.PROMPT_HASH)
            is_named = own != caller.user
            return own if is_named or not prompt else _hashed(caller.tenant, f"prompt\0{prompt}")
        case _:
            return conversation(caller, values)


def placing(caller: Caller, model: Model, key: str, api: Api = Api.CHAT) -> Placing | None:
    """How a pod is chosen for a request with this affinity; None where Envoy chooses.

    vLLM stores responses in the pod that made them. So a pod gives no conversation of that API
    away, or a `previous_response_id` would be unknown.
    """
    if model.versions is None and not model.pods:
        return None
    versions = () if model.versions is None else model.versions.all
    by_version = {version.name: version.pods for version in versions if version.pods}
    if not model.pods and not by_version:
        return None
    is_stored = api is Api.RESPONSES
    is_named = is_stored or model.affinity is not Affinity.NONE
    named = f"{caller.tenant}\0{key}" if is_named else ""
    return Placing(model.pods, by_version, named, None if is_stored else model.pod_slots)


def _text(values: Mapping[str, Value], key: RequestKey) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _hashed(tenant: str, text: str) -> str:
    return hashlib.sha256(f"{tenant}\0{text}".encode()).hexdigest()[:32]
