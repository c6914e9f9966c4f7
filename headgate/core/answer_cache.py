"""The answer cache: what a policy says of it, and what an answer from it asks of the limits."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from headgate.core.contract import AdmissionKey

OFFER_METADATA = ("x-headgate-cache", "1")
"""The metadata that Envoy's ext_proc filter sends with each call if it can serve the answer cache.

An older filter does not allow the service to ask for a body and an answer in one request.
"""
CACHE_CONTROL = "cache-control"
"""The header by which a client bounds the use of the cache."""
CACHE_HEADER = "x-headgate-cache"
"""The header of an answer that says whether it came from the cache: `hit` or `miss`."""
HIT, MISS = "hit", "miss"
HIT_DETAILS = "headgate_cache_hit"
"""Envoy's response code details of an answer from the cache, by which the access log knows it."""


@dataclass(frozen=True, slots=True)
class ModelCache:
    """How long answers of a model are kept, and how large one may be."""

    ttl_s: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class TenantCache:
    """A tenant that caches: how many bytes all its answers may have together."""

    max_bytes: int


@dataclass(frozen=True, slots=True)
class HitAllowed:
    """The limits let the answer go, and hold it until its settlement.

    The client gets `headers`. `held_by` is as in `LimitsKey.HELD_BY`, empty if the store holds it.
    """

    headers: tuple[tuple[str, str], ...] = ()
    held_by: str = ""


@dataclass(frozen=True, slots=True)
class HitRefused:
    """A limit refuses the answer with 429. `limit` is its id, None if no limit refused it."""

    message: str
    headers: tuple[tuple[str, str], ...]
    limit: str | None


AskLimits: TypeAlias = Callable[
    [Mapping[AdmissionKey, str], int, int], Awaitable[HitAllowed | HitRefused | None]
]
"""Asks the limits about an answer from the cache, before it goes out.

It takes the request's admission and the answer's tokens, those of the prompt and of the output. It
returns None if the limits cannot be asked. It bounds its own time and does not raise.
"""
