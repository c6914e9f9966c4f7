"""The address of the database, and the password beside it. An address holds no password."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from headgate.core.errors import OperatorError

_FORM = (
    "the database must be postgresql://USER@HOST:PORT/DATABASE, or"
    " postgresql://USER@/DATABASE?host=/FOLDER for a unix socket"
)
_REQUIRED = ("host", "user", "dbname")
_OPTIONS = {
    *_REQUIRED,
    "port",
    "passfile",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
}
_ALWAYS = {"application_name": "headgate", "connect_timeout": "5", "keepalives_idle": "5"}


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A checked address. `options` are libpq's, without a password."""

    options: dict[str, str]
    password_file: Path | None = None

    def connection_options(self) -> dict[str, str]:
        """Everything that a new connection needs; reads the password again each time.

        Raises OperatorError if the file has no readable password.
        """
        if self.password_file is None:
            return self.options
        return {**self.options, "password": _read(self.password_file)}


def database_address(url: str, password_file: Path | None = None) -> DatabaseAddress:
    """Checks a URL and that its password file is readable.

    Over TCP the server must prove its name by a certificate (`sslmode=verify-full`), unless the URL
    names another mode. Raises OperatorError without the URL, as somebody may have put a password
    into it.
    """
    options = _parsed(url)
    if "password" in options:
        raise OperatorError(
            "the database's URL holds a password, which every user of this machine can read:"
            " write it into a file and name that with --database-password-file"
        )
    if unknown := sorted(options.keys() - _OPTIONS):
        known = ", ".join(sorted(_OPTIONS))
        raise OperatorError(f"the database's URL has the option {unknown[0]}; allowed: {known}")
    if not all(options.get(name) for name in _REQUIRED):
        raise OperatorError(_FORM)
    if password_file is not None:
        _read(password_file)
    return DatabaseAddress({**_ALWAYS, **_tls(options), **options}, password_file)


def _parsed(url: str) -> dict[str, str]:
    """The options of a URL. libpq would also take `host=... user=...`, which is no URL."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise OperatorError(_FORM)
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except ProgrammingError:
        raise OperatorError(_FORM) from None


def _tls(options: dict[str, str]) -> dict[str, str]:
    """libpq's own default would go on in clear text when the server offers no TLS."""
    is_socket = all(host.startswith("/") for host in options["host"].split(","))
    if is_socket or "sslmode" in options:
        return {}
    return {"sslmode": "verify-full", "sslrootcert": _authorities()}


def _authorities() -> str:
    """The system's authorities as Python finds them: the libpq of a wheel knows no place."""
    return ssl.get_default_verify_paths().cafile or "system"


def _read(path: Path) -> str:
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise OperatorError(f"{path}: cannot be read ({reason})") from None
    if not password:
        raise OperatorError(f"{path}: holds no password for the database")
    return password
