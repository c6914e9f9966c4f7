"""Keeps what files configure in force up to date with them, and a good version in force always."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

from prometheus_client import Counter, Gauge

from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.policy import FileError, parse_policy, read_policy
from headgate.rls_config import config_files, parse_domains, read_config
from ratelimit.descriptors.tree import Domains

log = logging.getLogger("headgate.reload")

CHECK_INTERVAL_S = 0.5
"""With the time to compile it, a key that is taken out of the file is refused within a second."""

_SETTLED_S = 2.0
_MAX_LOGGED_PROBLEMS = 20

T = TypeVar("T")

Contents: TypeAlias = tuple[tuple[Path, bytes], ...]
"""The files that were read, in order."""


async def ignore_change(_new: object) -> None:
    """Nobody else needs to follow."""


def _no_file_is_empty(contents: Contents) -> bool:
    return all(data for _, data in contents)


@dataclass(frozen=True, slots=True)
class Source(Generic[T]):
    """What is watched. `files` and `read` raise FileError, `compile` too.

    `noun` and `name` are what it is called in the log, `check` the command that tells every
    mistake of it. Contents that are not `is_whole` get a moment, as more may be written.
    """

    noun: str
    name: str
    check: str
    files: Callable[[], tuple[Path, ...]]
    read: Callable[[Path], bytes]
    compile: Callable[[Contents], T]
    reloads: Counter
    loaded_seconds: Gauge
    is_whole: Callable[[Contents], bool] = _no_file_is_empty


class Watcher(Generic[T]):
    """Watches one source while it is open as an asynchronous context.

    A change is read and compiled off the event loop into a whole new value; then `on_change`
    is awaited with it, and one reference is swapped. Files that are bad, gone, or refused by
    `on_change` (with any exception) leave the last good value in force; it is logged once
    and counted as refused.

    Files are found changed by their stat, then by their content: Kubernetes swaps a symlink
    above them and editors replace them, so inode notifications would miss what counts.
    """

    def __init__(
        self, source: Source[T], clock: Clock, on_change: Callable[[T], Awaitable[None]]
    ) -> None:
        """Loads the first value; raises FileError if it is bad."""
        self._source = source
        self._clock = clock
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._stats: tuple[tuple[int, ...], ...] | None = None
        self._refused: bytes | None = None
        contents = self._read()
        self._digest = _digest(contents)
        self._current = source.compile(contents)
        source.loaded_seconds.set(clock.now_s())

    def current(self) -> T:
        """What is in force. Read it once for each request, so that one answer has one version."""
        return self._current

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name=f"{self._source.noun} watcher")
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
        """Looks at the files now; True when a new value came into force."""
        try:
            found = await asyncio.to_thread(self._read_if_touched)
        except FileError as error:
            self._refuse(hashlib.sha256(str(error).encode()).digest(), error.problems)
            return False
        if found is None:
            return False
        contents, digest = found
        if digest == self._digest:
            self._recovered()
            return False
        return digest != self._refused and await self._change_to(contents, digest)

    async def _change_to(self, contents: Contents, digest: bytes) -> bool:
        problems: tuple[str, ...]
        try:
            new = await asyncio.to_thread(self._source.compile, contents)
            await self._on_change(new)
        except FileError as error:
            problems = error.problems
        except OperatorError as error:
            problems = (f"{self._source.name}: cannot be applied: {error}",)
        except Exception as error:
            # Whatever went wrong with one change must not end the watch over the next ones.
            log.exception("the %s cannot be applied", self._source.noun)
            problems = (f"{self._source.name}: cannot be applied: {error}",)
        else:
            self._apply(new, digest)
            return True
        self._refuse(digest, problems)
        return False

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self.check_once()

    def _read(self) -> Contents:
        return tuple((path, self._source.read(path)) for path in self._source.files())

    def _read_if_touched(self) -> tuple[Contents, bytes] | None:
        """The contents and their digest, or None when the stats are those of the last time.

        A file that changed within the last two seconds is read again whatever its stat says:
        file systems stamp times coarsely, so a second change may leave no trace there.
        """
        before = self._stats_now()
        if before is not None and before == self._stats:
            return None
        contents = self._read()
        after = self._stats_now()
        if after is None or before != after:
            self._stats = None
            return None  # being written right now: the next look sees it whole
        changed_at_s = max((stat[0] for stat in after), default=0) / 1e9
        is_settled = self._clock.now_s() - changed_at_s > _SETTLED_S
        self._stats = after if is_settled else None
        if not is_settled and not self._source.is_whole(contents):
            return None
        return contents, _digest(contents)

    def _stats_now(self) -> tuple[tuple[int, ...], ...] | None:
        try:
            stats = [path.stat() for path in self._source.files()]
        except (OSError, ValueError, FileError):
            return None
        return tuple(
            (now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino, now.st_dev) for now in stats
        )

    def _apply(self, new: T, digest: bytes) -> None:
        self._current = new
        self._digest = digest
        self._refused = None
        self._source.reloads.labels("applied").inc()
        self._source.loaded_seconds.set(self._clock.now_s())
        log.info("%s applied: %s", self._source.noun, self._source.name)

    def _refuse(self, digest: bytes, problems: tuple[str, ...]) -> None:
        if digest == self._refused:
            return
        self._refused = digest
        self._source.reloads.labels("refused").inc()
        refused = f"{self._source.noun} refused, the last good one stays in force:"
        if len(problems) == 1:
            log.error("%s %s", refused, problems[0])
            return
        log.error("%s", refused)
        for problem in problems[:_MAX_LOGGED_PROBLEMS]:
            log.error("%s", problem)
        more = len(problems) - _MAX_LOGGED_PROBLEMS
        if more > 0:
            log.error("and %d more: run `%s`", more, self._source.check)

    def _recovered(self) -> None:
        """The files hold what is in force again, after a time in which they were bad or gone."""
        if self._refused is not None:
            self._refused = None
            log.info("%s as in force again: %s", self._source.noun, self._source.name)


class PolicyWatcher(Watcher[CompiledPolicy]):
    """Watches the policy file. `transform` may adapt each policy before anyone sees it."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        metrics: Metrics,
        on_change: Callable[[CompiledPolicy], Awaitable[None]] = ignore_change,
        transform: Callable[[CompiledPolicy], CompiledPolicy] = lambda policy: policy,
    ) -> None:
        source = Source(
            noun="policy",
            name=str(path),
            check=f"headgate check {path}",
            files=lambda: (path,),
            read=read_policy,
            compile=lambda contents: transform(parse_policy(contents[0][1], str(path))),
            reloads=metrics.policy_reloads,
            loaded_seconds=metrics.policy_loaded_seconds,
        )
        super().__init__(source, clock, on_change)


class DropInWatcher(Watcher[Domains]):
    """Watches the files and directories of `--ratelimit-config`."""

    def __init__(self, paths: tuple[Path, ...], clock: Clock, metrics: Metrics) -> None:
        options = " ".join(f"--ratelimit-config {path}" for path in paths)
        source = Source(
            noun="ratelimit configuration",
            name=", ".join(str(path) for path in paths),
            check=f"headgate check {options}",
            files=lambda: config_files(paths),
            read=read_config,
            compile=parse_domains,
            reloads=metrics.ratelimit_config_reloads,
            loaded_seconds=metrics.ratelimit_config_loaded_seconds,
        )
        super().__init__(source, clock, ignore_change)


def _digest(contents: Contents) -> bytes:
    digest = hashlib.sha256()
    for path, data in contents:
        digest.update(f"{path}\0{len(data)}\0".encode(errors="surrogateescape"))
        digest.update(data)
    return digest.digest()
