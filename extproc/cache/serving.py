"""Answers a request from the cache, once the limits have let the answer go."""

from dataclasses import dataclass

from extproc.cache.answers import KeptAnswer
from extproc.cache.cache import AnswerCache, Hit, Place, Recorder
from extproc.types import Admit, Refuse
from headgate.core.answer_cache import AskLimits, HitAllowed, HitRefused
from headgate.core.apis import door_of
from headgate.core.errors import ApiError, Refusal

_LIMITS_AWAY = ApiError(Refusal.UNAVAILABLE, "A service of the gateway is unavailable. Try again.")


@dataclass(frozen=True, slots=True)
class Served:
    """The request ends here with an answer of the cache, which the limits have let go."""

    answer: KeptAnswer
    age_s: int
    allowed: HitAllowed


@dataclass(frozen=True, slots=True)
class OverLimit:
    """The request ends here with 429, in the shape of its path."""

    refused: HitRefused
    path: str


class CachedAnswers:
    """Looks requests up in the cache, and asks the limits about each answer that it has.

    Envoy asks the limits only about requests that go on to the model.
    """

    def __init__(self, cache: AnswerCache, ask: AskLimits) -> None:
        self._cache = cache
        self._ask = ask

    async def serve(self, admit: Admit, body: bytes) -> Served | OverLimit | Refuse | Place | None:
        """The end of a request with this body, as vLLM would get it.

        Without a kept answer: the place for the answer of the model, None if it must not be kept.
        """
        caching = admit.caching
        if caching is None:
            return None
        found = await self._cache.look_up(caching, admit.admission, body)
        if not isinstance(found, Hit):
            return found
        answer = found.answer
        said = await self._ask(admit.admission, answer.prompt, answer.completion)
        match said:
            case HitAllowed():
                self._cache.count_hit("hit")
                return Served(answer, found.age_s, said)
            case HitRefused():
                self._cache.count_hit("over_limit")
                return OverLimit(said, caching.path)
            case None:
                self._cache.count_hit("over_limit")
                return Refuse(_LIMITS_AWAY, door_of(caching.path).shape)

    def recorder(self, place: Place) -> Recorder:
        """Records the answer of the model."""
        return self._cache.recorder(place)
