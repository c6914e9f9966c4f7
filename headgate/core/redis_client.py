"""A client of the Redis that replicas share, from its URL. Callers set their own deadlines."""

from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException

from headgate.core.errors import OperatorError

_FORMS = (
    "the store must be `memory`, redis://HOST:PORT/DB, rediss://HOST:PORT/DB (TLS),"
    " unix:///PATH?db=DB, or a node of a cluster: redis+cluster://HOST:PORT or"
    " rediss+cluster://HOST:PORT"
)
_TCP = {"redis", "rediss", "redis+cluster", "rediss+cluster"}
_OPTIONS = {
    "db",
    "username",
    "password",
    "client_name",
    "health_check_interval",
    "socket_keepalive",
}
_TLS_OPTIONS = {
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
}


class PasswordFile(CredentialProvider):
    """Reads the password from a file for each new connection, so that it can be changed.

    Raises OperatorError at once if there is no password in the file.
    """

    def __init__(self, path: Path, username: str | None = None) -> None:
        self._path = path
        self._username = username
        try:
            is_there = bool(self._read())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise OperatorError(f"{path}: cannot be read ({reason})") from None
        if not is_there:
            raise OperatorError(f"{path}: holds no password for the store")

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The password, after the name of the user if there is one.

        Raises RedisConnectionError if the file is no longer readable: the store is away then.
        """
        try:
            password = self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise RedisConnectionError("the file with the password is not readable") from error
        return (password,) if self._username is None else (self._username, password)

    def _read(self) -> str:
        return self._path.read_text(encoding="utf-8").rstrip("\r\n")


def redis_client(url: str, password_file: Path | None = None) -> "Redis | RedisCluster":
    """For `redis://`, `rediss://` or `unix://`; a cluster for `redis+cluster://` or
    `rediss+cluster://` of any of its nodes.

    The password may be in the URL or in a file. Raises OperatorError for anything else, without
    the URL, which may hold a password.
    """
    parts = _checked(url)
    options: dict[str, Any] = {
        # One immediate retry for a connection that broke while idle.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "protocol": 2,
    }
    if password_file is not None:
        if parts.password or "password" in parse_qs(parts.query):
            raise OperatorError("the store's password is in its URL and in a file: name one")
        user = None if parts.username is None else unquote(parts.username)
        options["credential_provider"] = PasswordFile(password_file, user)
        url = url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)
    try:
        if parts.scheme.endswith("+cluster"):
            return RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
        return Redis.from_url(url, **options)
    except (ValueError, RedisClusterException) as error:
        raise OperatorError(_FORMS) from error


def _checked(url: str) -> SplitResult:
    """The URL's parts. The Redis library would read many mistakes as localhost or database 0."""
    try:
        parts = urlsplit(url)
        port = parts.port
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as error:
        raise OperatorError(_FORMS) from error
    if "://" not in url or parts.scheme not in _TCP | {"unix"} or port == 0:
        raise OperatorError(_FORMS)
    if parts.fragment or "#" in url:
        raise OperatorError("the store's URL holds a #; in a password write it as %23")
    if parts.scheme == "unix":
        is_whole = len(parts.path) > 1 and not parts.hostname
    else:
        is_whole = bool(parts.hostname) and _is_database(parts)
    allowed = _OPTIONS | (_TLS_OPTIONS if parts.scheme.startswith("rediss") else set())
    if not is_whole or not all(value.isdecimal() for value in query.get("db", [])):
        raise OperatorError(_FORMS)
    if query.keys() - allowed:
        known = ", ".join(sorted(allowed))
        raise OperatorError(f"the store's URL has an option that is not one of {known}")
    return parts


def _is_database(parts: SplitResult) -> bool:
    """A cluster has only database 0."""
    number = parts.path.removeprefix("/")
    return number in {"", "0"} or ("+" not in parts.scheme and number.isdecimal())
