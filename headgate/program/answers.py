"""The answer cache of a process: its secret, and the store beside that of the limits."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from extproc.cache.answers import AnswerStore
from extproc.cache.cache import AnswerCache
from extproc.cache.memory import MemoryAnswers
from extproc.cache.redis import RedisAnswers
from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.policy.answer_cache import caching_models
from headgate.program.settings import ServiceSettings, StoreSettings

LEAST_SECRET_BYTES = 32
_LOOK_INTERVAL_S = 1.0

log = logging.getLogger("headgate.cache")


@asynccontextmanager
async def running_answers(
    settings: ServiceSettings,
    policy: Callable[[], CompiledPolicy],
    memory: MemoryAnswers,
    clock: Clock,
    metrics: Metrics,
) -> AsyncIterator[AnswerCache | None]:
    """The cache; None without a secret. Raises OperatorError for a bad secret or URL.

    `memory` keeps the answers where the settings name no Redis.
    """
    if settings.cache_secret_file is None:
        async with _warning(policy):
            yield None
        return
    secret = read_secret(settings.cache_secret_file)
    async with answer_store(settings.store, memory, clock) as store:
        cache = AnswerCache(store, secret, clock, metrics)
        yield cache
        await cache.close()


@asynccontextmanager
async def answer_store(
    settings: StoreSettings, memory: MemoryAnswers, clock: Clock
) -> AsyncIterator[AnswerStore]:
    """Where answers are kept: beside the limits. Raises OperatorError for a bad URL."""
    if settings.url == "memory":
        yield memory
        return
    answers = RedisAnswers(settings.url, settings.deadline_s, clock, settings.password_file)
    try:
        yield answers
    finally:
        await answers.close()


def read_secret(path: Path) -> bytes:
    """The secret without the white space around it. Raises OperatorError, and never shows it."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read ({error.strerror})") from None
    if len(secret) < LEAST_SECRET_BYTES:
        raise OperatorError(
            f"{path}: the secret of the answer cache has {len(secret)} bytes, and needs at least"
            f" {LEAST_SECRET_BYTES}; make one with `openssl rand -hex 32`"
        )
    return secret


class MissingSecret:
    """Says that the policy in force asks for a cache and there is no secret: once, until it ends.

    A reload of the policy changes nothing else in a process without a cache.
    """

    def __init__(self, policy: Callable[[], CompiledPolicy]) -> None:
        self._policy = policy
        self._last: CompiledPolicy | None = None
        self._is_missed = False

    async def look(self) -> None:
        """Looks at the policy in force."""
        policy = self._policy()
        if policy is self._last:
            return
        self._last = policy
        was_missed, self._is_missed = self._is_missed, bool(caching_models(policy))
        if self._is_missed and not was_missed:
            log.warning("no answer is kept: `answer_cache` needs the option --cache-secret-file")


@asynccontextmanager
async def _warning(policy: Callable[[], CompiledPolicy]) -> AsyncIterator[None]:
    """Looks at each policy, from the first on."""
    missing = MissingSecret(policy)
    await missing.look()
    task = BackgroundTask("the answer cache", missing.look, _LOOK_INTERVAL_S, log)
    task.start()
    try:
        yield
    finally:
        await task.stop()
