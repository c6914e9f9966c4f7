"""Keeps configuration in step with its files, and always keeps a good version in force."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

from prometheus_client import Gauge

from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.policy import FileError, parse_policy, read_policy
from headgate.program.series import start_policy_series
from headgate.program.stalls import spare_collections
from headgate.rls_config import config_files, parse_domains, read_config
from ratelimit.descriptors.tree import Domains

log = logging.getLogger("headgate.reload")

CHECK_INTERVAL_S = 0.5
"""With the time to compile the file, a key that was removed from it is refused within a second."""

_SETTLED_S = 2.0
_MAX_LOGGED_PROBLEMS = 20

T = TypeVar("T")

Contents: TypeAlias = tuple[tuple[Path, bytes], ...]
"""The files that were read, in order."""

Follower: TypeAlias = Callable[[T], Awaitable[None]]
"""Applies a new value elsewhere, before it is in force here. It refuses one by raising."""


async def _no_follower(_new: object) -> None:
    """Nothing else depends on the value."""


def _no_file_is_empty(contents: Contents) -> bool:
    return all(data for _, data in contents)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedFiles(Generic[T]):
    """Files that configure one thing, and how they become its value.

    `files`, `read` and `compile` raise FileError.
    """

    noun: str
    """The name of the thing in the log."""
    name: str
    """The paths, as the log shows them."""
    check: str
    """The command that lists every mistake."""
    files: Callable[[], tuple[Path, ...]]
    read: Callable[[Path], bytes]
    compile: Callable[[Contents], T]
    count: Callable[[str], object]
    """Counts a change by its result: `applied` or `refused`."""
    refused: Gauge
    loaded_seconds: Gauge
    is_whole: Callable[[Contents], bool] = _no_file_is_empty
    """Contents that are not whole are read again for a moment, as more may be written."""


class Watcher(Generic[T]):
    """Watches files, from `start` to `stop` or while it is open as an asynchronous context.

    A change is read and compiled off the event loop into a whole new value. The follower is
    awaited with that value; then one reference is swapped.

    The last good value stays in force when files are bad or gone, or when the follower raises any
    exception. That is logged once and counted as refused.

    Files are found changed by their stat, then by their content: Kubernetes swaps a symlink
    above them and editors replace them, so inode notifications would miss those changes.
    """

    def __init__(self, watched: WatchedFiles[T], clock: Clock) -> None:
        """Loads the first value; raises FileError if it is bad."""
        self._watched = watched
        self._clock = clock
        self._follower: Follower[T] = _no_follower
        self._task = BackgroundTask(f"the {watched.noun}", self.check_once, CHECK_INTERVAL_S, log)
        self._stats: tuple[tuple[int, ...], ...] | None = None
        self._refused: bytes | None = None
        contents = self._read()
        self._digest = _digest(contents)
        self._current = watched.compile(contents)
        watched.loaded_seconds.set(clock.now_s())

    def set_follower(self, follower: Follower[T]) -> None:
        """Awaits `follower` with each new value from now on, before the value is in force."""
        self._follower = follower

    def start(self) -> None:
        """Begins to look for changes, in a task of the running event loop."""
        self._task.start()

    async def stop(self) -> None:
        """Looks for changes no longer. Safe to call before `start`, and again."""
        await self._task.stop()

    def current(self) -> T:
        """The value in force. Read it once for each request: its answer is then of one version."""
        return self._current

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def look_again(self) -> None:
        """Reads the files at the next look, and tells again why they are refused."""
        self._stats = None
        self._refused = None

    async def check_once(self) -> bool:
        """Looks at the files now; returns True when a new value came into force."""
        try:
            touched = await asyncio.to_thread(self._read_if_touched)
        except FileError as error:
            self._refuse(hashlib.sha256(str(error).encode()).digest(), error.problems)
            return False
        if touched is None:
            return False
        contents, digest = touched
        if digest == self._digest:
            self._recovered()
            return False
        return digest != self._refused and await self._change_to(contents, digest)

    async def _change_to(self, contents: Contents, digest: bytes) -> bool:
        problems: tuple[str, ...]
        try:
            new = await asyncio.to_thread(self._watched.compile, contents)
            await self._follower(new)
        except FileError as error:
            problems = error.problems
        except OperatorError as error:
            problems = (f"{self._watched.name}: cannot be applied: {error}",)
        except Exception as error:
            # A change that fails in any way must not end the watch over the next ones.
            log.exception("the %s cannot be applied", self._watched.noun)
            problems = (f"{self._watched.name}: cannot be applied: {error}",)
        else:
            self._apply(new, digest)
            return True
        self._refuse(digest, problems)
        return False

    def _read(self) -> Contents:
        return tuple((path, self._watched.read(path)) for path in self._watched.files())

    def _read_if_touched(self) -> tuple[Contents, bytes] | None:
        """The contents and their digest, or None when the stats are those of the last time.

        A file that changed within the last two seconds is read again even if its stat is the same.
        File systems stamp times coarsely, so a second change may leave no trace there.
        """
        before = self._stats_now()
        if before is not None and before == self._stats:
            return None
        contents = self._read()
        after = self._stats_now()
        if after is None or before != after:
            self._stats = None
            return None  # a write is in progress: the next look sees the whole file
        changed_at_s = max((stat[0] for stat in after), default=0) / 1e9
        is_settled = self._clock.now_s() - changed_at_s > _SETTLED_S
        self._stats = after if is_settled else None
        if not is_settled and not self._watched.is_whole(contents):
            return None
        return contents, _digest(contents)

    def _stats_now(self) -> tuple[tuple[int, ...], ...] | None:
        try:
            stats = [path.stat() for path in self._watched.files()]
        except (OSError, ValueError, FileError):
            return None
        return tuple(
            (now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino, now.st_dev) for now in stats
        )

    def _apply(self, new: T, digest: bytes) -> None:
        self._current = new
        spare_collections()
        self._digest = digest
        self._refused = None
        self._watched.refused.set(0)
        self._watched.count("applied")
        self._watched.loaded_seconds.set(self._clock.now_s())
        log.info("%s applied: %s", self._watched.noun, self._watched.name)

    def _refuse(self, digest: bytes, problems: tuple[str, ...]) -> None:
        if digest == self._refused:
            return
        self._refused = digest
        self._watched.refused.set(1)
        self._watched.count("refused")
        refused = f"{self._watched.noun} refused, the last good one stays in force:"
        if len(problems) == 1:
            log.error("%s %s", refused, problems[0])
            return
        log.error("%s", refused)
        for problem in problems[:_MAX_LOGGED_PROBLEMS]:
            log.error("%s", problem)
        more = len(problems) - _MAX_LOGGED_PROBLEMS
        if more > 0:
            log.error("and %d more: run `%s`", more, self._watched.check)

    def _recovered(self) -> None:
        """The files hold the value in force again, after they were bad or gone."""
        self._watched.refused.set(0)
        if self._refused is not None:
            self._refused = None
            log.info("%s is the one in force again: %s", self._watched.noun, self._watched.name)


class PolicyWatcher(Watcher[CompiledPolicy]):
    """Watches the policy file. With an `upstream`, every model is served by that vLLM."""

    def __init__(
        self, path: Path, clock: Clock, metrics: Metrics, *, upstream: str | None = None
    ) -> None:
        def compile_policy(contents: Contents) -> CompiledPolicy:
            policy = parse_policy(contents[0][1], str(path))
            start_policy_series(metrics, policy)  # here, as this runs off the event loop
            return policy if upstream is None else _served_by(upstream, policy)

        watched = WatchedFiles(
            noun="policy",
            name=str(path),
            check=f"headgate check {path}",
            files=lambda: (path,),
            read=read_policy,
            compile=compile_policy,
            count=lambda result: metrics.policy_reloads.labels(result).inc(),
            refused=metrics.policy_refused,
            loaded_seconds=metrics.policy_loaded_seconds,
        )
        super().__init__(watched, clock)


class RlsConfigWatcher(Watcher[Domains]):
    """Watches the files and directories of `--ratelimit-config`."""

    def __init__(self, paths: tuple[Path, ...], clock: Clock, metrics: Metrics) -> None:
        options = " ".join(f"--ratelimit-config {path}" for path in paths)
        watched = WatchedFiles(
            noun="ratelimit configuration",
            name=", ".join(str(path) for path in paths),
            check=f"headgate check {options}",
            files=lambda: config_files(paths),
            read=read_config,
            compile=parse_domains,
            count=lambda result: metrics.ratelimit_config_reloads.labels(result).inc(),
            refused=metrics.ratelimit_config_refused,
            loaded_seconds=metrics.ratelimit_config_loaded_seconds,
        )
        super().__init__(watched, clock)


def _served_by(upstream: str, policy: CompiledPolicy) -> CompiledPolicy:
    """The policy with every model served by `upstream`; no model has versions then."""
    models = {
        name: replace(model, upstream=upstream, versions=None, pods=())
        for name, model in policy.models.items()
    }
    return replace(policy, models=models)


def _digest(contents: Contents) -> bytes:
    digest = hashlib.sha256()
    for path, data in contents:
        digest.update(f"{path}\0{len(data)}\0".encode(errors="surrogateescape"))
        digest.update(data)
    return digest.digest()
