"""Becomes another program that the kernel kills when its parent dies.

Its arguments are PARENT or PARENT:UID:GID, then PROGRAM ARGUMENT... With a uid it first becomes
that user, who has no other group, in the folder `/`.

`headgate.dataplane.child` runs it as a file, and it imports only the standard library. Running
Python between fork and exec would not be safe in a process that serves gRPC. It uses prctl(2) with
PR_SET_PDEATHSIG, which exists only on Linux. A change of the user clears it, and an exec keeps it.
Elsewhere it only becomes the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Exits with 127 if the program cannot be started."""
    who, *program = sys.argv[1:]
    parent, *user = who.split(":")
    if user:
        _become(*map(int, user))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone already")  # no signal would come later
    try:
        os.execv(program[0], program)  # noqa: S606 - becoming another program is its purpose
    except OSError as error:
        print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def _become(uid: int, gid: int) -> None:
    os.chdir("/")
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


if __name__ == "__main__":
    main()
