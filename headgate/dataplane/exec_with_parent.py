"""Becomes another program that the kernel kills when its parent dies: PARENT PROGRAM ARGUMENT...

Run as a file by `dataplane.child`, with nothing imported but the standard library. Between a
fork and an exec inside a process that serves gRPC it would not be safe to run Python.
prctl(2), PR_SET_PDEATHSIG: Linux only, kept over the exec; elsewhere it only becomes the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Exits with 127 when the program cannot be started."""
    parent, *program = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone already")  # and so no signal would come any more
    try:
        os.execv(program[0], program)  # noqa: S606 - becoming another program is its purpose
    except OSError as error:
        print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
