"""The folder of one box's database: data, socket, passwords and log, for the server's user only."""

import fcntl
import os
import pwd
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.dataplane.child import User

ADMIN, OWNER, APPLICATION = "headgate_admin", "headgate_owner", "headgate"
"""The roles: the server's administrator, the schema's owner, and `headgate up` at work."""
DATABASE = "headgate"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 107
"""The longest path of a unix socket (Linux, unix(7))."""


@dataclass(frozen=True, slots=True)
class DatabaseFolder:
    """A folder that this process holds. `user` is the server's, None for our own."""

    path: Path
    user: User | None

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def socket(self) -> Path:
        return self.path / "socket"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def passwords(self) -> Path:
        """The passwords of the roles, in the form of libpq's password file."""
        return self.path / "pgpass"

    def url(self, role: str, database: str = DATABASE) -> str:
        """The address of a database for one of the roles; the password is in `passwords`."""
        return f"postgresql://{role}@/{database}?host={self.socket}&passfile={self.passwords}"

    def password_of(self, role: str) -> str:
        """The password of a role. Raises OperatorError where the file has none."""
        lines = self.passwords.read_text(encoding="utf-8").splitlines()
        found = [line.split(":")[4] for line in lines if line.split(":")[3:4] == [role]]
        if not found:
            raise OperatorError(f"{self.passwords} has no password of {role}: restore the file")
        return found[0]

    def own(self, path: Path, mode: int) -> None:
        """Gives a file or folder to the server's user."""
        path.chmod(mode)
        if self.user is not None:
            os.chown(path, self.user.uid, self.user.gid)


@contextmanager
def database_folder(path: Path) -> Iterator[DatabaseFolder]:
    """Makes the folder on the first start, and holds it until the block ends.

    As root the server runs as the folder's owner, or as `nobody` in a new folder. Raises
    OperatorError when the folder cannot be used, or another box uses it.
    """
    path = path.absolute()
    _check_path(path)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = DatabaseFolder(path.resolve(), _server_user(path))
        _check_content(folder)
        folder.own(folder.path, 0o700)
        folder.socket.mkdir(mode=0o700, exist_ok=True)
        folder.own(folder.socket, 0o700)
        with (folder.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
    except BlockingIOError:
        raise OperatorError(f"another headgate uses the database in {path}") from None
    except OSError as error:
        raise OperatorError(f"cannot use {path} for the database: {error.strerror}") from error


def write_passwords(folder: DatabaseFolder) -> None:
    """Makes a new password for each role. The file is closed to others before it is filled."""
    lines = [f"*:*:*:{role}:{secrets.token_urlsafe(24)}\n" for role in (ADMIN, OWNER, APPLICATION)]
    folder.passwords.touch(mode=0o600)
    folder.own(folder.passwords, 0o600)
    folder.passwords.write_text("".join(lines), encoding="utf-8")


def _check_path(path: Path) -> None:
    """The path is written into an address, and into the name of a socket."""
    longest = _SOCKET_PATH_BYTES - len(f"/socket/{_SOCKET_NAME}")
    if len(os.fsencode(path)) > longest:
        raise OperatorError(f"the path {path} is longer than {longest} bytes; name another one")
    if not re.fullmatch(r"[A-Za-z0-9/._+-]+", str(path)):
        raise OperatorError(f"the path {path} holds other signs than letters, digits and / . _ + -")


def _check_content(folder: DatabaseFolder) -> None:
    """Nobody's files are mixed with the database's."""
    if folder.data.exists() or folder.passwords.exists():
        return
    others = {entry.name for entry in folder.path.iterdir()} - {"socket", "lock", "log", "new"}
    if others:
        raise OperatorError(
            f"{folder.path} is neither empty nor a database of Headgate; name another folder"
        )


def _server_user(path: Path) -> User | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    status = path.stat()
    if status.st_uid != 0:
        return User(status.st_uid, status.st_gid)
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)
