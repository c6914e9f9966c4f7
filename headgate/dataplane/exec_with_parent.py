"""Becomes another program that the kernel kills when its parent dies: PARENT PROGRAM ARGUMENT...

`headgate.dataplane.child` runs it as a file, and it imports only the standard library. Running
Python between fork and exec would not be safe in a process that serves gRPC. It uses prctl(2) with
PR_SET_PDEATHSIG, which is kept over the exec and exists only on Linux. Elsewhere it only becomes
the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Exits with 127 if the program cannot be started."""
    parent, *program = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone already")  # no signal would come later
    try:
        os.execv(program[0], program)  # noqa: S606 - becoming another program is its purpose
    except OSError as error:
        print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
