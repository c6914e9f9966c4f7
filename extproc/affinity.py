"""The key that keeps requests on one pod, and a conversation on one version. Pure."""

import hashlib
from collections.abc import Mapping

from extproc.types import Value
from headgate.core.contract import RequestKey
from headgate.core.policy import Caller


def affinity(caller: Caller, values: Mapping[str, Value]) -> str:
    """The key that keeps requests on one pod: the client's cache key, or else the user.

    The cache key is hashed with the tenant. It may hold any text, and two tenants must not be able
    to choose the same affinity.
    """
    key = values.get(RequestKey.PROMPT_CACHE_KEY)
    if not isinstance(key, str) or not key:
        return caller.user
    return hashlib.sha256(f"{caller.tenant}\0{key}".encode()).hexdigest()[:32]
