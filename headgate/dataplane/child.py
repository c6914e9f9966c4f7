"""Child processes that never outlive this process, not even after a `kill -9`."""

import asyncio
import os
import resource
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.dataplane import exec_with_parent

_TAIL_BYTES = 64 * 1024
_OTHER_FILES = 200


@dataclass(frozen=True, slots=True)
class User:
    """The user and group of a process, by their numbers."""

    uid: int
    gid: int


async def spawn(
    command: Sequence[str],
    log_file: Path | None,
    pass_fds: Sequence[int] = (),
    user: User | None = None,
) -> Process:
    """Starts a child whose output is appended to `log_file`; `command` begins with a path.

    Without a `log_file` the child has our own output. It inherits the descriptors of `pass_fds`,
    under the same numbers.

    The child runs in a session of its own. Ctrl-C in a terminal then reaches only this process,
    which stops the child in order. On Linux the kernel kills the child when the thread that spawned
    it ends, so call this from the main thread. Elsewhere an orphan must be ended by hand.

    As root, it can run as another `user`. A program that cannot be started ends with exit code
    127, and its log says why.
    """
    who = str(os.getpid()) if user is None else f"{os.getpid()}:{user.uid}:{user.gid}"
    wrapper = [sys.executable, "-I", "-S", exec_with_parent.__file__, who]
    with ExitStack() as stack:
        output: dict[str, Any] = {}
        if log_file is not None:
            output = {"stdout": stack.enter_context(log_file.open("ab")), "stderr": STDOUT}
        return await asyncio.create_subprocess_exec(
            *wrapper,
            *command,
            stdin=DEVNULL,
            start_new_session=True,
            pass_fds=pass_fds,
            **output,
        )


async def stop(process: Process, grace_s: float) -> int:
    """Ends a child by SIGTERM, and by SIGKILL if it still runs after `grace_s`.

    Returns its exit code, or the negative number of the signal that ended it.
    """
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            process.kill()
    return await process.wait()


def room_for_connections() -> int:
    """How many client connections a child's limit of open files allows.

    Each needs a second connection to its upstream. Envoy raises its soft limit to the hard limit at
    its start.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if hard == resource.RLIM_INFINITY else max(2, hard - _OTHER_FILES) // 2


def last_lines(log_file: Path, count: int) -> list[str]:
    """The last lines of a log, to explain why a child died."""
    try:
        with log_file.open("rb") as log:
            size_bytes = log.seek(0, os.SEEK_END)
            log.seek(max(0, size_bytes - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
