"""Verifies tokens: from the bytes of a request to the person, or to the refusal."""

from collections.abc import Callable, Mapping

from headgate.core.clock import Clock
from headgate.core.errors import ApiError
from headgate.core.issuers import FrontEnd, Issuer, KeysNeeded, Person
from headgate.core.metrics import Metrics
from headgate.identity.issuers.jwks import KeySet
from headgate.identity.issuers.source import IssuerKeys
from headgate.identity.tokens.claims import check_times, expires_s, issuer_of, person_of
from headgate.identity.tokens.end_users import end_user_of
from headgate.identity.tokens.errors import Reason, TokenError
from headgate.identity.tokens.form import Token, read
from headgate.identity.tokens.id_token import Expected, check_id_token
from headgate.identity.tokens.memory import TokenMemory
from headgate.identity.tokens.revocations import NOTHING_REVOKED, Revocations
from headgate.identity.tokens.signature import check_signature

_REVOKED = TokenError(Reason.REVOKED, "The token has been revoked. Log in again.")


class TokenVerifier:
    """Verifies the tokens of the policy's issuers, and remembers those that count for a moment.

    A new policy or a new key set empties the memory. Revocations are read at each call, so they
    also stop tokens that are remembered.
    """

    def __init__(
        self,
        keys: IssuerKeys,
        clock: Clock,
        metrics: Metrics,
        revocations: Callable[[], Revocations] = lambda: NOTHING_REVOKED,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._metrics = metrics
        self._revocations = revocations
        self._memory = TokenMemory()
        self._issuers: Mapping[str, Issuer] = {}
        keys.on_change = self._memory.clear

    def person(
        self, token: bytes, digest: bytes, issuers: Mapping[str, Issuer]
    ) -> Person | ApiError | KeysNeeded:
        """The person whom a token names, or its refusal. `digest` is that of the token.

        With KeysNeeded the answer depends on keys that `fetch_keys` may bring.
        """
        if issuers is not self._issuers:
            self._memory.clear()
            self._issuers = issuers
        person = self._memory.get(digest, self._clock.now_s())
        if person is None:
            verified = self._verified(token, digest, issuers)
            if not isinstance(verified, Person):
                return verified
            person = verified
        revocations = self._revocations()
        if revocations is not NOTHING_REVOKED and revocations.covers(person):
            self._count(person.issuer, Reason.REVOKED)
            return _REVOKED.answer
        return person

    async def fetch_keys(self, needed: KeysNeeded) -> None:
        """Fetches the keys that a token needs. It returns without them if that takes too long."""
        await self._keys.bring(needed)

    def check_id_token(
        self, raw: bytes, issuer: Issuer, expected: Expected
    ) -> ApiError | KeysNeeded | None:
        """The refusal of an ID token that answers a login; None if it is right."""
        try:
            token = read(raw)
            keys = self._keys_for(token, issuer)
            if keys is None:
                return KeysNeeded(issuer.url, token.key_id)
            check_signature(token, keys.keys, issuer)
            check_times(token, self._clock.now_s(), issuer.clock_skew_s)
            check_id_token(token, issuer, expected)
        except TokenError as error:
            self._count(issuer.alias, error.reason)
            return error.answer
        return None

    def end_user(self, token: bytes, front_end: FrontEnd) -> str | ApiError:
        """The user id in a header that the front end has signed, or its refusal."""
        try:
            return end_user_of(token, front_end, self._clock.now_s())
        except TokenError as error:
            self._count("front_end", error.reason)
            return error.answer

    def _verified(
        self, raw: bytes, digest: bytes, issuers: Mapping[str, Issuer]
    ) -> Person | ApiError | KeysNeeded:
        alias = ""
        try:
            token = read(raw)
            issuer = issuer_of(token, issuers)
            alias = issuer.alias
            keys = self._keys_for(token, issuer)
            if keys is None:
                return KeysNeeded(issuer.url, token.key_id)
            check_signature(token, keys.keys, issuer)
            now_s = self._clock.now_s()
            person = person_of(token, issuer, now_s)
        except TokenError as error:
            self._count(alias, error.reason)
            return error.answer
        self._memory.add(digest, person, now_s, expires_s(token))
        self._count(alias, "verified")
        return person

    def _keys_for(self, token: Token, issuer: Issuer) -> KeySet | None:
        """The issuer's keys; None if they should be fetched first. Raises TokenError."""
        if token.algorithm not in issuer.algorithms:
            message = f"The token's algorithm is not in `issuers.{issuer.alias}.algorithms`."
            raise TokenError(Reason.ALGORITHM, message)
        keys = self._keys.keys_of(issuer)
        if keys is not None and token.key_id in keys.keys:
            return keys
        if self._keys.may_bring(issuer, token.key_id):
            return None
        if keys is None:
            message = f"The keys of issuer {issuer.alias} cannot be fetched at the moment."
            raise TokenError(Reason.KEYS_AWAY, f"{message} Try again.")
        return keys

    def _count(self, issuer: str, outcome: str) -> None:
        self._metrics.of_identity.tokens_checked.labels(issuer, outcome).inc()
