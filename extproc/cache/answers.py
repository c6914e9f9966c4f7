"""An answer as it is kept, and the stores that keep it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class KeptAnswer(Struct, frozen=True, array_like=True, gc=False):
    """A whole answer with status 200, byte for byte as vLLM gave it.

    `stored_s` is its Unix time. `prompt` and `completion` are its tokens.
    """

    stored_s: float
    content_type: str
    prompt: int
    completion: int
    body: bytes


class Absence(StrEnum):
    """Why a store has no answer."""

    ABSENT = "absent"
    AWAY = "away"
    """The store does not answer in its time."""


@dataclass(frozen=True, slots=True)
class Found:
    """The content of a store under a key: an answer, or why there is none.

    `generation` is that of the tenant's answers, empty while it has none. It goes back to the store
    with the new answer. A purge changes it, so an answer from before a purge is never kept after.
    """

    answer: KeptAnswer | Absence
    generation: str = ""


class Kept(StrEnum):
    """The outcome of keeping an answer."""

    STORED = "stored"
    PURGED = "purged"
    """The tenant's answers were purged while it came."""
    TOO_LARGE = "too_large"
    """It is larger than all answers of the tenant may be."""
    FAILED = "failed"
    """The store did not take it in its time, or has no memory left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """An answer to be kept for `ttl_s` under `key`; all of the tenant's have `max_bytes`."""

    tenant: str
    key: str
    generation: str
    answer: KeptAnswer
    ttl_s: int
    max_bytes: int


class AnswerStore(Protocol):
    """Keeps answers for all replicas. Each call bounds its own time, and only a purge raises."""

    async def find(self, tenant: str, key: str) -> Found:
        """The answer that is kept under a key of the tenant."""
        ...

    async def keep(self, answer: Keep) -> Kept:
        """Keeps an answer. The tenant's oldest answers make room for it."""
        ...

    async def purge(self, tenant: str) -> int:
        """Forgets all answers of a tenant, and returns how many. Raises AnswersAwayError."""
        ...


class AnswersAwayError(Exception):
    """The store does not answer, so nothing is known to be purged."""
