"""The folder of one box: sockets, Envoy's configuration and log, for its owner only."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

from headgate.core.errors import OperatorError
from headgate.dataplane.box import LOG_FILE
from headgate.dataplane.supervisor import EnvoyError

ADMIN_SOCKET = "envoy-admin.sock"
_SOCKET_PATH_BYTES = 107
"""The longest path of a unix socket (Linux, unix(7))."""


def hook_sockets(folder: Path, workers: int) -> tuple[Path, ...]:
    """Where each of the `workers` answers hooks."""
    return tuple(folder / f"hooks-{number}.sock" for number in range(1, workers + 1))


@contextmanager
def run_folder(requested: Path | None) -> Iterator[Path]:
    """The folder of sockets, configuration and logs, for its owner only; a temporary one for None.

    A temporary folder is removed at the end. After an error of Envoy its log stays.

    Raises OperatorError when it cannot be used, or another box runs in it.
    """
    with ExitStack() as stack:
        try:
            if requested is None:
                folder = Path(tempfile.mkdtemp(prefix="headgate-"))
                stack.push(partial(_remove, folder))
            else:
                requested.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder = requested.resolve()
            _own(stack, folder)
        except OSError as error:
            raise OperatorError(
                f"cannot use {requested or tempfile.gettempdir()} for sockets and logs: "
                f"{error.strerror}; name another folder with --run-dir"
            ) from error
        yield folder


def _remove(
    folder: Path,
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _traceback: TracebackType | None,
) -> None:
    log = folder / LOG_FILE
    if not isinstance(error, EnvoyError) or not log.exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path != log:
            path.unlink(missing_ok=True)


def _own(stack: ExitStack, folder: Path) -> None:
    """Holds the folder until the stack ends: a second box would take over its sockets.

    Raises OperatorError when somebody else could enter it too.
    """
    if len(os.fsencode(folder / ADMIN_SOCKET)) > _SOCKET_PATH_BYTES:
        raise OperatorError(
            f"the path {folder} is too long for a socket (with its name at most "
            f"{_SOCKET_PATH_BYTES} bytes); name another folder with --run-dir"
        )
    status = folder.stat()
    if status.st_mode & 0o077 or status.st_uid != os.getuid():
        raise OperatorError(
            f"{folder} is open to other users (mode {status.st_mode & 0o7777:o}), and anybody"
            " who reaches its sockets can act as Envoy; close it with `chmod 700`, or name"
            " another folder with --run-dir"
        )
    lock = stack.enter_context((folder / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OperatorError(
            f"another headgate runs in {folder}; stop it, or name another folder with --run-dir"
        ) from error
