"""Logs in the callers of the management API: by the operator token, or by tokens of issuers."""

import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar

from headgate.core.errors import ApiError, OperatorError
from headgate.core.issuers import MAX_TOKEN_BYTES, Issuer, KeysNeeded, Person
from headgate.core.keys import digest_of
from headgate.identity.tokens.id_token import Expected
from headgate.identity.users import Standing
from headgate.management.problems import ProblemError
from headgate.management.rights import OPERATOR_TOKEN, Manager, manager_of

MIN_TOKEN_CHARACTERS = 32
T = TypeVar("T")
_TOO_MANY = "Your address has sent too many requests without a token that counts. Wait a minute."


class Verifier(Protocol):
    """Verifies tokens of issuers."""

    def person(
        self, token: bytes, digest: bytes, issuers: Mapping[str, Issuer], /
    ) -> Person | ApiError | KeysNeeded:
        """The person whom a token names."""
        ...

    def check_id_token(
        self, raw: bytes, issuer: Issuer, expected: Expected, /
    ) -> ApiError | KeysNeeded | None:
        """The refusal of an ID token that answers a login."""
        ...

    async def fetch_keys(self, needed: KeysNeeded, /) -> None:
        """Fetches keys that are missing."""
        ...


class Login:
    """Turns the value of `authorization` into a manager.

    The file of the operator token is read for each request, so a new token counts at once. A
    request that fails counts against its address (`count_failure`); a right token passes.
    """

    def __init__(
        self,
        verifier: Verifier,
        issuers: Callable[[], Mapping[str, Issuer]],
        operator_token_file: Path | None,
        standing: Callable[[Person], Awaitable[Standing]],
        count_failure: Callable[[str], float | None],
    ) -> None:
        self._count_failure = count_failure
        self._verifier = verifier
        self._standing = standing
        self._issuers = issuers
        self._file = operator_token_file

    async def manager(self, authorization: str, address: str) -> Manager:
        """The manager. Raises ProblemError with 401, 429 or 503, and DatabaseAwayError."""
        return await self.counted(address, self._manager(authorization))

    async def counted(self, address: str, answer: Awaitable[T]) -> T:
        """The answer. A failure to log in counts against the address. Raises ProblemError."""
        try:
            return await answer
        except ProblemError as error:
            wait_s = self._count_failure(address) if error.status == 401 else None
            if wait_s is None:
                raise
            raise ProblemError(429, _TOO_MANY) from None

    async def _manager(self, authorization: str) -> Manager:
        scheme, _, text = authorization.strip().partition(" ")
        token = text.strip().encode("latin-1", "replace")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            raise ProblemError(401, "Send `Authorization: Bearer TOKEN`.")
        if self.is_operator(token):
            return Manager(OPERATOR_TOKEN, is_operator=True)
        return await self.admitted(await self.person(token))

    def is_operator(self, token: bytes) -> bool:
        """Whether this is the operator token. Raises OperatorError for a bad file."""
        return self._file is not None and hmac.compare_digest(
            token, read_token(self._file).encode()
        )

    def operator_digest(self) -> bytes | None:
        """The digest of the operator token in force; None if there is none."""
        return None if self._file is None else sha256(read_token(self._file).encode()).digest()

    async def admitted(self, person: Person) -> Manager:
        """A person whose word is verified, by what the database says about them now.

        Raises ProblemError if their token is revoked, and DatabaseAwayError.
        """
        standing = await self._standing(person)
        if standing.is_revoked:
            raise ProblemError(401, "The token has been revoked. Log in again.")
        return manager_of(person, standing.blocked_in)

    async def person(self, token: bytes) -> Person:
        """The person whom a token names. Raises ProblemError with 401 or 503."""
        issuers = self._issuers()
        if not issuers or token.count(b".") != 2:
            raise ProblemError(401, "The token is neither the operator token nor of an issuer.")
        return await self._settled(lambda: self._verifier.person(token, digest_of(token), issuers))

    async def check_id_token(self, token: bytes, issuer: Issuer, expected: Expected) -> None:
        """Raises ProblemError with 401 or 503 for an ID token that answers no login of ours."""
        await self._settled(lambda: self._verifier.check_id_token(token, issuer, expected))

    async def _settled(self, verify: Callable[[], T | ApiError | KeysNeeded]) -> T:
        """The answer of the verifier, once it has the keys. Raises ProblemError."""
        said = verify()
        if isinstance(said, KeysNeeded):
            await self._verifier.fetch_keys(said)
            said = verify()
        if isinstance(said, KeysNeeded):
            raise ProblemError(503, "The keys of the token's issuer cannot be fetched now.")
        if isinstance(said, ApiError):
            raise ProblemError(503 if said.refusal.status == 503 else 401, said.message)
        return said


def read_token(path: Path) -> str:
    """The operator token in a file. Raises OperatorError for a missing, short or odd one."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise OperatorError(f"{path}: cannot be read ({reason})") from None
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isprintable() or " " in token:
        raise OperatorError(
            f"{path}: the operator token must have at least {MIN_TOKEN_CHARACTERS} characters"
            " without blanks"
        )
    return token


def ensure_token(path: Path) -> None:
    """Writes a fresh token, for its owner only, if the file is missing. Raises OperatorError."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        read_token(path)
        return
    except OSError as error:
        raise OperatorError(f"{path}: cannot be written ({error.strerror})") from None
    with os.fdopen(file, "w", encoding="ascii") as opened:
        opened.write(secrets.token_urlsafe(32) + "\n")
