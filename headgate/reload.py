"""Keeps the policy in force up to date with its file, and a good one in force always."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from headgate.clock import Clock
from headgate.errors import OperatorError
from headgate.metrics import Metrics
from headgate.policy import PolicyError, parse_policy, read_policy
from registry.types import Registry

log = logging.getLogger("headgate.policy")

CHECK_INTERVAL_S = 0.5
"""With the time to compile it, a key that is taken out of the file is refused within a second."""

_SETTLED_S = 2.0
_MAX_LOGGED_PROBLEMS = 20


async def ignore_change(_registry: Registry) -> None:
    """Nobody else needs to follow the policy."""


class PolicyWatcher:
    """Watches one policy file while it is open as an asynchronous context.

    A change is read and compiled off the event loop into a whole new registry; then
    `on_change` is awaited with it, and one reference is swapped. `transform` may adapt each
    registry before anyone sees it. A file that is bad, gone, or refused by `on_change`
    (with any exception) leaves the last good policy in force; it is logged once and counted
    as refused in `metrics.policy_reloads`.

    The file is found changed by its stat, then by its content: Kubernetes swaps a symlink
    above it and editors replace it, so inode notifications would miss what counts.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        metrics: Metrics,
        on_change: Callable[[Registry], Awaitable[None]] = ignore_change,
        transform: Callable[[Registry], Registry] = lambda registry: registry,
    ) -> None:
        """Loads the first policy; raises PolicyError if it is bad."""
        self._path = path
        self._clock = clock
        self._metrics = metrics
        self._on_change = on_change
        self._transform = transform
        self._task: asyncio.Task[None] | None = None
        self._stat: tuple[int, ...] | None = None
        self._refused: bytes | None = None
        data = read_policy(path)
        self._digest = _digest(data)
        self._registry = transform(parse_policy(data, str(path)))
        metrics.policy_loaded_seconds.set(clock.now_s())

    def current(self) -> Registry:
        """The policy in force. Read it once for each request, so that one answer has one policy."""
        return self._registry

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="policy watcher")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def check_once(self) -> bool:
        """Looks at the file now; True when a new policy came into force."""
        try:
            found = await asyncio.to_thread(self._read_if_touched)
        except PolicyError as error:
            self._refuse(_digest(str(error).encode()), error.problems)
            return False
        if found is None:
            return False
        data, digest = found
        if digest == self._digest:
            self._recovered()
            return False
        return digest != self._refused and await self._change_to(data, digest)

    async def _change_to(self, data: bytes, digest: bytes) -> bool:
        problems: tuple[str, ...]
        try:
            registry = await asyncio.to_thread(self._compile, data)
            await self._on_change(registry)
        except PolicyError as error:
            problems = error.problems
        except OperatorError as error:
            problems = (f"{self._path}: cannot be applied: {error}",)
        except Exception as error:
            # Whatever went wrong with one change must not end the watch over the next ones.
            log.exception("the policy cannot be applied")
            problems = (f"{self._path}: cannot be applied: {error}",)
        else:
            self._apply(registry, digest)
            return True
        self._refuse(digest, problems)
        return False

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self.check_once()

    def _compile(self, data: bytes) -> Registry:
        return self._transform(parse_policy(data, str(self._path)))

    def _read_if_touched(self) -> tuple[bytes, bytes] | None:
        """The content and its digest, or None when the file's stat is that of the last time.

        A file that changed within the last two seconds is read again whatever its stat says:
        file systems stamp times coarsely, so a second change may leave no trace there.
        """
        before = self._stat_now()
        if before is not None and before == self._stat:
            return None
        data = read_policy(self._path)
        after = self._stat_now()
        if after is None or before != after:
            self._stat = None
            return None  # being written right now: the next look sees it whole
        is_settled = self._clock.now_s() - after[0] / 1e9 > _SETTLED_S
        self._stat = after if is_settled else None
        if not data and not is_settled:
            return None  # emptied just now, to be written
        return data, _digest(data)

    def _stat_now(self) -> tuple[int, ...] | None:
        try:
            now = self._path.stat()
        except (OSError, ValueError):
            return None
        return (now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino, now.st_dev)

    def _apply(self, registry: Registry, digest: bytes) -> None:
        self._registry = registry
        self._digest = digest
        self._refused = None
        self._metrics.policy_reloads.labels("applied").inc()
        self._metrics.policy_loaded_seconds.set(self._clock.now_s())
        log.info("policy applied: %s", self._path)

    def _refuse(self, digest: bytes, problems: tuple[str, ...]) -> None:
        if digest == self._refused:
            return
        self._refused = digest
        self._metrics.policy_reloads.labels("refused").inc()
        log.error("policy refused, the last good one stays in force:")
        for problem in problems[:_MAX_LOGGED_PROBLEMS]:
            log.error("%s", problem)
        more = len(problems) - _MAX_LOGGED_PROBLEMS
        if more > 0:
            log.error("and %d more: run `headgate check %s`", more, self._path)

    def _recovered(self) -> None:
        """The file holds what is in force again, after a time in which it was bad or gone."""
        if self._refused is not None:
            self._refused = None
            log.info("policy as in force again: %s", self._path)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
