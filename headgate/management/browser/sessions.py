"""From a session's cookie to the manager, by what policy and database say about them now."""

import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256

import msgspec

from headgate.core.issuers import Issuer, Person
from headgate.identity.sessions import Session, SessionStore
from headgate.management.browser.attempt import SECRET
from headgate.management.login import Login
from headgate.management.problems import ProblemError
from headgate.management.rights import OPERATOR_TOKEN, Manager

_ENDED = ProblemError(401, "There is no session, or it has ended. Log in again.")


class Sessions:
    """Opens, reads and ends sessions. Every method raises DatabaseAwayError."""

    def __init__(
        self, store: SessionStore, login: Login, issuers: Callable[[], Mapping[str, Issuer]]
    ) -> None:
        self._store = store
        self._login = login
        self._issuers = issuers

    async def open(self, person: Person) -> str:
        """A new session of a verified person: the value of its cookie, which is kept nowhere."""
        return await self._opened(person)

    async def open_operator(self) -> str:
        """A new session of whoever has shown the operator token."""
        return await self._opened(Person(issuer="", subject="", user=OPERATOR_TOKEN, tenants={}))

    async def manager(self, secret: str) -> Manager:
        """The manager of a session. Raises ProblemError with 401 for one that has ended.

        A session ends when the entry of its issuer changes, or the operator token. Blocks and
        revocations count as for a token.
        """
        session = await self._store.get(_digest(secret)) if SECRET.fullmatch(secret) else None
        if session is None or session.entry_digest != self._entry_digest(session.person.issuer):
            raise _ENDED
        if session.person.issuer:
            return await self._login.admitted(session.person)
        return Manager(OPERATOR_TOKEN, is_operator=True)

    async def end(self, secret: str) -> None:
        """Ends a session, if there is one."""
        if SECRET.fullmatch(secret):
            await self._store.end(_digest(secret))

    async def _opened(self, person: Person) -> str:
        digest = self._entry_digest(person.issuer)
        if digest is None:
            raise _ENDED
        secret = secrets.token_urlsafe(32)
        await self._store.open(_digest(secret), Session(person, digest))
        return secret

    def _entry_digest(self, alias: str) -> bytes | None:
        """The digest of the setting that lets people of an issuer in; None if it is gone."""
        if not alias:
            return self._login.operator_digest()
        for issuer in self._issuers().values():
            if issuer.alias == alias:
                entry = msgspec.json.encode(issuer, enc_hook=str, order="deterministic")
                return sha256(entry).digest()
        return None


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
