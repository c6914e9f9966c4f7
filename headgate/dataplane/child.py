"""Child processes that never outlive this one, not even when it is killed with -9."""

import asyncio
import os
import resource
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Sequence
from pathlib import Path

from headgate.dataplane import exec_with_parent

_TAIL_BYTES = 64 * 1024
_OTHER_FILES = 200


async def spawn(command: Sequence[str], log_file: Path) -> Process:
    """Starts a child whose output goes to the end of `log_file`; `command` begins with a path.

    It runs in a session of its own, so that Ctrl-C in a terminal reaches only us, who stop
    it in order. On Linux the kernel kills it as soon as the thread that spawned it is gone,
    so call this from the main thread; elsewhere an orphan would have to be ended by hand.
    A program that cannot be started ends with exit code 127 and says why in its log.
    """
    wrapper = [sys.executable, "-I", "-S", exec_with_parent.__file__, str(os.getpid())]
    with log_file.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *wrapper, *command, stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True
        )


async def stop(process: Process, grace_s: float) -> int:
    """Ends a child: SIGTERM, and SIGKILL when it is still there after `grace_s`.

    Returns its exit code (negative: the number of the signal that ended it).
    """
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            process.kill()
    return await process.wait()


def room_for_connections() -> int:
    """How many connections of clients a child's open files allow, each with one to its upstream.

    Envoy raises its soft limit to the hard one at its start.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if hard == resource.RLIM_INFINITY else max(2, hard - _OTHER_FILES) // 2


def last_lines(log_file: Path, count: int) -> list[str]:
    """The last lines of a log, for the message that says why a child died."""
    try:
        with log_file.open("rb") as log:
            size_bytes = log.seek(0, os.SEEK_END)
            log.seek(max(0, size_bytes - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
