"""The answer cache of one process: looks requests up, and keeps their answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from extproc.cache.answers import Absence, AnswerStore, Found, Keep, Kept, KeptAnswer
from extproc.cache.keys import OddBodyError, answer_key, is_deterministic, read_body, tenant_key
from extproc.cache.recording import Recording
from extproc.counting.counter import AnswerHead
from extproc.types import Caching
from headgate.core.clock import Clock
from headgate.core.contract import AdmissionKey
from headgate.core.metrics import Metrics

MOST_RECORDED_BYTES = 64 * 1024 * 1024
"""The bytes of all answers that one process records at a time. Beyond it, none is begun."""
_LONG_BYTES = 256 * 1024
"""From this size on, an answer is read in a thread, beside other requests."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to a request belongs, as the store said when it was looked up."""

    caching: Caching
    key: str
    generation: str


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer that is young enough for its request."""

    answer: KeptAnswer
    age_s: int


class AnswerCache:
    """Answers by the keys of `secret`, in `store`. Nothing here ever ends a request."""

    def __init__(self, store: AnswerStore, secret: bytes, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._secret = secret
        self._clock = clock
        self._metrics = metrics.of_cache
        self._recorded_bytes = 0
        self._keeping: set[asyncio.Task[None]] = set()

    async def look_up(
        self, caching: Caching, admission: Mapping[AdmissionKey, str], body: bytes
    ) -> Hit | Place | None:
        """The kept answer to this body, as vLLM would get it.

        Without one: the place for its answer, or None if its answer must not be kept.
        """
        found = await self._looked_up(caching, admission, body)
        match found:
            case Hit() | None:
                return found
            case outcome, place:
                self._metrics.lookups.labels(outcome).inc()
                return place

    async def _looked_up(
        self, caching: Caching, admission: Mapping[AdmissionKey, str], body: bytes
    ) -> Hit | tuple[str, Place | None]:
        try:
            asked = read_body(body)
        except OddBodyError:
            return "odd_body", None
        if not is_deterministic(caching.api, asked):
            return "not_deterministic", None
        own = tenant_key(self._secret, caching.tenant)
        key = answer_key(own, caching, admission, asked)
        found = await self._store.find(caching.tenant, key)
        place = Place(caching, key, found.generation)
        return self._judged(found, caching, place)

    def _judged(
        self, found: Found, caching: Caching, place: Place
    ) -> Hit | tuple[str, Place | None]:
        answer = found.answer
        if isinstance(answer, Absence):
            return answer.value, None if answer is Absence.AWAY else place
        age_s = max(0.0, self._clock.now_s() - answer.stored_s)
        if caching.max_age_s is not None and (age_s > caching.max_age_s or caching.max_age_s == 0):
            return "not_wanted", place
        if age_s > caching.ttl_s:  # it was kept under an older policy
            return "old", place
        return Hit(answer, int(age_s))

    def recorder(self, place: Place) -> "Recorder":
        """Records the answer to a request that was not found."""
        return Recorder(self, place)

    def count_hit(self, outcome: str) -> None:
        """Counts an answer that was found: it went out, or a limit refused it."""
        self._metrics.lookups.labels(outcome).inc()

    def has_room(self) -> bool:
        """Whether one more answer may be recorded."""
        return self._recorded_bytes < MOST_RECORDED_BYTES

    def hold(self, size_bytes: int) -> None:
        """Notes how many bytes a recording holds more; negative for fewer."""
        self._recorded_bytes += size_bytes

    def drop(self, outcome: str) -> None:
        """Counts an answer that is not kept."""
        self._metrics.answers.labels(outcome).inc()

    def keep(self, place: Place, recording: Recording) -> None:
        """Keeps a recorded answer, beside the requests that come."""
        task = asyncio.create_task(self._keep(place, recording))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def close(self) -> None:
        """Waits until the answers that came last are kept."""
        await asyncio.gather(*self._keeping)

    async def _keep(self, place: Place, recording: Recording) -> None:
        caching, now_s = place.caching, self._clock.now_s()
        try:
            if recording.size_bytes > _LONG_BYTES:
                answer = await asyncio.to_thread(recording.answer, now_s)
            else:
                answer = recording.answer(now_s)
            if answer is None:
                self.drop("not_whole")
                return
            keep = Keep(
                tenant=caching.tenant,
                key=place.key,
                generation=place.generation,
                answer=answer,
                ttl_s=caching.ttl_s,
                max_bytes=caching.tenant_max_bytes,
            )
            kept = await self._store.keep(keep)
            self._metrics.answers.labels(kept.value).inc()
            if kept is Kept.STORED:
                self._metrics.stored_bytes.inc(len(answer.body))
        finally:
            self.hold(-recording.size_bytes)


class Recorder:
    """Records one answer, and gives it to the cache at its end.

    A client that leaves, or an answer that breaks off, ends it by `close`.
    """

    def __init__(self, cache: AnswerCache, place: Place) -> None:
        self._cache = cache
        self._place = place
        self._recording: Recording | None = None

    @property
    def records(self) -> bool:
        """Whether more of the answer is wanted."""
        return self._recording is not None

    def begin(self, head: AnswerHead, is_last: bool) -> None:
        """The headers of the answer."""
        recording = Recording(self._place.caching.api, self._place.caching.max_bytes)
        if is_last or not recording.begin(head):
            self._cache.drop("not_whole")
        elif not self._cache.has_room():
            self._cache.drop("no_room")
        else:
            self._recording = recording

    def add(self, chunk: bytes, is_last: bool) -> None:
        """The next bytes of the answer."""
        recording = self._recording
        if recording is None:
            return
        self._cache.hold(len(chunk))
        if not recording.add(chunk):
            self._stop("too_large")
        elif is_last:
            self._recording = None
            self._cache.keep(self._place, recording)

    def close(self) -> None:
        """The request has ended. An answer that has not come to its end is not kept."""
        if self._recording is not None:
            self._stop("not_whole")

    def _stop(self, outcome: str) -> None:
        if self._recording is not None:
            self._cache.hold(-self._recording.size_bytes)
        self._recording = None
        self._cache.drop(outcome)
