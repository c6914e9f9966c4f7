"""Answers in this process: for one box, and for tests."""

import uuid
from collections import OrderedDict
from dataclasses import dataclass, field

from extproc.cache.answers import Absence, Found, Keep, Kept, KeptAnswer
from headgate.core.clock import Clock


@dataclass(slots=True)
class _OfTenant:
    generation: str = ""
    size_bytes: int = 0
    answers: OrderedDict[str, tuple[float, KeptAnswer]] = field(default_factory=OrderedDict)
    """By key: when the answer expires, and the answer. The oldest one comes first."""

    def forget(self, key: str) -> None:
        kept = self.answers.pop(key, None)
        if kept is not None:
            self.size_bytes -= len(kept[1].body)


class MemoryAnswers:
    """Keeps answers until they expire, or the tenant's newer ones need their room."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tenants: dict[str, _OfTenant] = {}

    async def find(self, tenant: str, key: str) -> Found:
        """The answer that is kept under a key of the tenant."""
        own = self._tenants.get(tenant, _OfTenant())
        expires_s, answer = own.answers.get(key, (0.0, None))
        if answer is None or expires_s <= self._clock.now_s():
            return Found(Absence.ABSENT, own.generation)
        return Found(answer, own.generation)

    async def keep(self, answer: Keep) -> Kept:
        """Keeps an answer. The tenant's oldest answers make room for it."""
        own = self._tenants.setdefault(answer.tenant, _OfTenant())
        if own.generation != answer.generation:
            return Kept.PURGED
        size_bytes = len(answer.answer.body)
        if size_bytes > answer.max_bytes:
            return Kept.TOO_LARGE
        own.generation = own.generation or uuid.uuid4().hex
        own.forget(answer.key)
        while own.size_bytes + size_bytes > answer.max_bytes:
            own.forget(next(iter(own.answers)))
        own.answers[answer.key] = (self._clock.now_s() + answer.ttl_s, answer.answer)
        own.size_bytes += size_bytes
        return Kept.STORED

    async def purge(self, tenant: str) -> int:
        """Forgets all answers of a tenant, and returns how many."""
        own = self._tenants.get(tenant, _OfTenant())
        self._tenants[tenant] = _OfTenant(generation=uuid.uuid4().hex)
        return len(own.answers)
