"""The keys of all issuers of the policy, kept fresh.

The keys of an issuer are fetched again every `REFRESH_S`, so that a withdrawn key stops to count. A
token with an unknown key has them fetched at once, but never more than once in `RETRY_S`. While an
issuer does not answer, its last keys count for its `stale_for_s`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

from headgate.core.clock import Clock
from headgate.core.issuers import Issuer, KeysNeeded
from headgate.core.metrics import Metrics
from headgate.identity.issuers.fetch import TIMEOUT_S, Fetch, FetchError
from headgate.identity.issuers.jwks import KeySet, read_keys

log = logging.getLogger("headgate.issuers")

REFRESH_S = 300.0
RETRY_S = 10.0
UNKNOWN_S = 60.0
"""How long an id that no key has is not looked for again."""
MAX_UNKNOWN = 1000
WAIT_S = 1.5
"""The longest time that a request waits for keys. Envoy waits 2 s for ext_authz."""
_LOOK_EVERY_S = 5.0

Issuers: TypeAlias = Callable[[], Mapping[str, Issuer]]
"""The issuers in force, by their URLs."""


@dataclass(slots=True)
class _State:
    """One issuer's keys, and the attempts to fetch them. Times are of the monotonic clock."""

    keys: KeySet | None = None
    document: bytes = b""
    loaded_s: float = 0.0
    tried_s: float | None = None
    failure: str = ""
    flight: asyncio.Task[None] | None = None
    unknown_until_s: dict[str, float] = field(default_factory=dict)


class IssuerKeys:
    """Keys by issuer. As an asynchronous context it fetches them before they are asked for.

    `on_change` is called when an issuer has published another set.
    """

    def __init__(self, issuers: Issuers, fetch: Fetch, clock: Clock, metrics: Metrics) -> None:
        self._issuers = issuers
        self._fetch = fetch
        self._clock = clock
        self._metrics = metrics
        self._states: dict[tuple[str, tuple[str, ...]], _State] = {}
        self._task: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="keys of issuers")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        flights = [state.flight for state in self._states.values() if state.flight is not None]
        tasks = [task for task in (self._task, *flights) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def keys_of(self, issuer: Issuer) -> KeySet | None:
        """The keys that count now; None before the first fetch, and beyond `stale_for_s`."""
        state = self._state(issuer)
        if self._clock.monotonic_s() - state.loaded_s > issuer.stale_for_s:
            return None
        return state.keys

    def may_bring(self, issuer: Issuer, key_id: str) -> bool:
        """Whether a fetch may bring a key that is missing, and is due or on its way."""
        state, now_s = self._state(issuer), self._clock.monotonic_s()
        if state.flight is not None:
            return True
        if state.tried_s is not None and now_s - state.tried_s < RETRY_S:
            return False
        return state.unknown_until_s.get(key_id, now_s) <= now_s

    async def bring(self, needed: KeysNeeded) -> None:
        """Fetches the keys of an issuer, once for all who wait, for at most `WAIT_S`.

        An id that the new set lacks is kept in mind, so that it is not looked for again.
        """
        issuer = self._issuers().get(needed.issuer)
        if issuer is None:
            return
        state = self._state(issuer)
        done, _ = await asyncio.wait({self._flight(issuer)}, timeout=WAIT_S)
        if done and not state.failure and state.keys and needed.key_id not in state.keys.keys:
            _keep(state.unknown_until_s, needed.key_id, self._clock.monotonic_s() + UNKNOWN_S)

    def refresh(self) -> None:
        """Begins to fetch all keys that are due, and forgets those of issuers that are gone."""
        issuers, now_s = self._issuers().values(), self._clock.monotonic_s()
        known = {_name(issuer) for issuer in issuers}
        for name in self._states.keys() - known:
            del self._states[name]
        for issuer in issuers:
            state = self._state(issuer)
            is_fresh = state.keys is not None and now_s - state.loaded_s < REFRESH_S
            is_early = state.tried_s is not None and now_s - state.tried_s < RETRY_S
            if not is_fresh and not is_early:
                self._flight(issuer)

    async def _watch(self) -> None:
        while True:
            self.refresh()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _state(self, issuer: Issuer) -> _State:
        return self._states.setdefault(_name(issuer), _State())

    def _flight(self, issuer: Issuer) -> "asyncio.Task[None]":
        state = self._state(issuer)
        if state.flight is None:
            state.tried_s = self._clock.monotonic_s()
            state.flight = asyncio.create_task(self._load(issuer, state))
        return state.flight

    async def _load(self, issuer: Issuer, state: _State) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                document = await self._fetch(issuer.url)
            self._take(issuer, state, document)
        except TimeoutError:
            self._failed(issuer, state, f"no answer within {TIMEOUT_S:g} s")
        except (FetchError, ValueError, RecursionError) as error:
            self._failed(issuer, state, str(error))
        finally:
            state.flight = None

    def _take(self, issuer: Issuer, state: _State, document: bytes) -> None:
        """Puts a set in force. One without a usable key is a fault of the issuer."""
        if document != state.document:
            keys = read_keys(document, issuer.algorithms)
            if not keys.keys:
                raise FetchError("it publishes no key for `algorithms`")
            state.keys, state.document = keys, document
            self.on_change()
            log.info("issuer %s: %d keys, %d skipped", issuer.alias, len(keys.keys), keys.skipped)
        state.loaded_s = self._clock.monotonic_s()
        state.failure = ""
        self._metrics.of_identity.issuer_fetches.labels(issuer.alias, "fetched").inc()
        self._metrics.of_identity.issuer_keys_loaded_seconds.labels(issuer.alias).set(
            self._clock.now_s()
        )

    def _failed(self, issuer: Issuer, state: _State, failure: str) -> None:
        self._metrics.of_identity.issuer_fetches.labels(issuer.alias, "failed").inc()
        if failure != state.failure:
            state.failure = failure
            log.error("the keys of issuer %s cannot be fetched: %s", issuer.alias, failure)


def _keep(unknown_until_s: dict[str, float], key_id: str, until_s: float) -> None:
    while len(unknown_until_s) >= MAX_UNKNOWN:
        del unknown_until_s[next(iter(unknown_until_s))]
    unknown_until_s[key_id] = until_s


def _name(issuer: Issuer) -> tuple[str, tuple[str, ...]]:
    """Keys are bound to the allowed algorithms, so others mean other keys."""
    return issuer.url, issuer.algorithms
