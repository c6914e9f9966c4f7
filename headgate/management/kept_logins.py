"""The logins of the command line: one file for each gateway, which nobody else may read."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from headgate.core.errors import OperatorError
from headgate.core.issuers import LoginToken

_OTHERS = 0o077


class KeptLogin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token for a gateway, and how to get the next one. `member` is what counts of an answer.

    `expires_s` is in seconds since the Unix epoch.
    """

    issuer: str
    client_id: str
    member: LoginToken
    token: str
    refresh_token: str | None
    expires_s: float


class KeptLogins:
    """The files in a folder. All methods raise OperatorError. `url` is that of the gateway."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, url: str) -> KeptLogin | None:
        """The login at a gateway; None without one."""
        path = self._path(url)
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OperatorError(f"{path}: cannot be read ({error.strerror})") from None
        if mode & _OTHERS:
            raise OperatorError(f"{path}: others may read it; delete it, and log in again")
        try:
            return msgspec.json.decode(data, type=KeptLogin)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise OperatorError(f"{path}: holds no login; delete it, and log in again") from None

    def put(self, url: str, login: KeptLogin) -> None:
        """Keeps a login, in the place of the one before."""
        path = self._path(url)
        fresh = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(file, "wb") as opened:
                opened.write(msgspec.json.encode(login))
            fresh.replace(path)
        except OSError as error:
            raise OperatorError(f"{path}: cannot be written ({error.strerror})") from None

    def remove(self, url: str) -> None:
        """Forgets a login, if there is one."""
        self._path(url).unlink(missing_ok=True)

    @contextmanager
    def locked(self, url: str) -> Iterator[None]:
        """Keeps other commands from using the same refresh token, which counts once."""
        with self._path(url).with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _path(self, url: str) -> Path:
        return self._folder / f"{quote(url.rstrip('/'), safe='')}.json"
