"""The parts of this program that the console asks beyond its database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from headgate.console.surroundings import Surroundings
from headgate.program.settings import StoreSettings
from ratelimit.store.memory import MemoryStore
from ratelimit.store.redis import RedisStore


@asynccontextmanager
async def surroundings(
    store: StoreSettings,
    memory: MemoryStore,
    registry: Callable[[], Awaitable[CollectorRegistry]],
    envoy: Callable[[], Awaitable[str | None]] | None,
    authorities: Path | None,
) -> AsyncIterator[Surroundings]:
    """The counters of the store that decides, the metrics of the program, and its Envoy.

    `memory` has the counters without a Redis. With one, they include what replicas have taken in
    slices. Raises OperatorError for a bad URL.
    """

    async def metrics() -> str:
        return generate_latest(await registry()).decode()

    around = partial(Surroundings, metrics=metrics, envoy=envoy, authorities=authorities)
    if store.url == "memory":
        yield around(peek=memory.peek)
        return
    shared = RedisStore.from_url(store.url, store.deadline_s, store.password_file)
    try:
        yield around(peek=shared.peek)
    finally:
        await shared.close()
