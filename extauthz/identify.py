"""Finds the caller: by a key, by a token of an issuer, or by the workload's own identity."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from extauthz.front_ends import acting_for
from extauthz.request import CheckInput, RawHeaders, Shown
from headgate.core.end_users import ORGANIZATION
from headgate.core.errors import ApiError, Refusal
from headgate.core.issuers import MAX_TOKEN_BYTES, FrontEnd, Issuer, KeysNeeded, Person
from headgate.core.key_ring import KeyRing, KeysUnavailableError
from headgate.core.keys import digest_of
from headgate.core.policy import Caller, CompiledPolicy

_AUTHORIZATION = "authorization"
_SCHEME = b"bearer"
_BLANKS = b" \t"
_MAX_KEY_BYTES = 512
_TOKEN_START = b"eyJ"
"""The start of a JSON object in base64, as every token begins."""


class Verifier(Protocol):
    """Verifies what is signed. It answers at once, by what it knows at this moment."""

    def person(
        self, token: bytes, digest: bytes, issuers: Mapping[str, Issuer], /
    ) -> Person | ApiError | KeysNeeded:
        """The person whom a token of an issuer names. `digest` is that of the token."""
        ...

    def end_user(self, token: bytes, front_end: FrontEnd, /) -> str | ApiError:
        """The end user whom a front end names in a header that it has signed."""
        ...

    async def fetch_keys(self, needed: KeysNeeded, /) -> None:
        """Fetches keys that are missing, if that takes a moment only."""
        ...


class Identity(Struct, frozen=True, gc=False):
    """The caller, and the name that people call them by; empty if it is not known."""

    caller: Caller
    display_name: str = ""


def identify(
    request: CheckInput, policy: CompiledPolicy, verifier: Verifier, keys: KeyRing
) -> Identity | ApiError | KeysNeeded:
    """The caller of the request's only key or token, else of its workload, or the error in them.

    A blocked user is refused whatever they show.
    """
    found = _found(request, policy, verifier, keys)
    if isinstance(found, Identity) and keys.is_blocked(found.caller.tenant, found.caller.user):
        return _BLOCKED
    return found


def _found(
    request: CheckInput, policy: CompiledPolicy, verifier: Verifier, keys: KeyRing
) -> Identity | ApiError | KeysNeeded:
    sent = _keys(request.credentials)
    if len(sent) > 1:
        return _TWO_KEYS
    if sent:
        try:
            return _by_key(sent.pop(), request.shown, policy, verifier, keys)
        except KeysUnavailableError:
            return _KEYS_UNAVAILABLE
    principal = request.shown.principal
    caller = policy.workloads.get(principal) if principal else None
    return _NO_KEY if caller is None else Identity(caller)


def _keys(credentials: RawHeaders) -> set[bytes]:
    """Every key of the request. A scheme other than Bearer carries no key.

    An empty value is no key: clients send one if their setting is an empty text.
    """
    keys = set()
    for name, value in credentials:
        key = _bearer_token(value) if name == _AUTHORIZATION else value.strip(_BLANKS)
        if key:
            keys.add(key)
    return keys


def _bearer_token(value: bytes) -> bytes:
    """The token of an `authorization` header; empty if it has none, or has another scheme."""
    # The scheme is case-insensitive and ends at the first blank (RFC 9110, 11.1).
    scheme, _, token = value.strip(_BLANKS).replace(b"\t", b" ").partition(b" ")
    return token.strip(_BLANKS) if scheme.lower() == _SCHEME else b""


def _by_key(
    key: bytes, shown: Shown, policy: CompiledPolicy, verifier: Verifier, keys: KeyRing
) -> Identity | ApiError | KeysNeeded:
    """The caller of a key or token. Raises KeysUnavailableError."""
    is_token = key.startswith(_TOKEN_START) and key.count(b".") == 2
    if len(key) > (MAX_TOKEN_BYTES if is_token else _MAX_KEY_BYTES) or not key.isascii():
        return _LONG_TOKEN if is_token else _BAD_KEY
    # The key itself is never compared. The time of the look-up may depend on the digest of the
    # sent text. The digest does not tell how similar the text is to a key.
    digest = digest_of(key)
    caller = policy.keys.get(digest) or (None if is_token else keys.find(digest))
    if caller is not None:
        return _of_key(caller, shown, policy, verifier, keys)
    if not is_token:
        return _BAD_KEY
    person = verifier.person(key, digest, policy.issuers) if policy.issuers else _NO_ISSUERS
    return _of_person(person, shown, policy) if isinstance(person, Person) else person


def _of_key(
    caller: Caller, shown: Shown, policy: CompiledPolicy, verifier: Verifier, keys: KeyRing
) -> Identity | ApiError:
    """The caller of a key, or the end user of its front end. None of a tenant that was removed.

    A front end whose own user is blocked names nobody.
    """
    if caller.tenant not in policy.tenants:
        return _BAD_KEY
    front_end = policy.front_ends.get(caller) if policy.front_ends else None
    if front_end is None or keys.is_blocked(caller.tenant, caller.user):
        return Identity(caller)
    acting = acting_for(caller, front_end, shown.headers, verifier.end_user)
    return Identity(acting) if isinstance(acting, Caller) else acting


def _of_person(person: Person, shown: Shown, policy: CompiledPolicy) -> Identity | ApiError:
    """The caller in the person's tenant, or in the one that they choose among several."""
    tenants = [tenant for tenant in person.tenants if tenant in policy.tenants]
    if len(tenants) != 1:
        chosen = {value.strip(_BLANKS) for name, value in shown.headers if name == ORGANIZATION}
        tenants = [tenant for tenant in tenants if chosen == {tenant.encode()}]
    if len(tenants) != 1:
        return _several(person)
    return Identity(Caller(tenants[0], person.user, person.issuer), person.display_name)


def _several(person: Person) -> ApiError:
    known = ", ".join(sorted(person.tenants))
    message = (
        f"You belong to the tenants {known}. Choose one in the header `OpenAI-Organization`, which"
        " clients of OpenAI call `organization`. The operator can also change"
        f" `issuers.{person.issuer}.tenants`."
    )
    return ApiError(Refusal.NO_TENANT, message)


_NO_KEY = ApiError(
    Refusal.NO_KEY,
    "The request has no API key. Send it as `Authorization: Bearer YOUR_KEY`, or in the header"
    " `x-api-key` or `api-key`.",
)
_BAD_KEY = ApiError(
    Refusal.BAD_KEY,
    "The API key is unknown. Check that you copied all of it and that it has not been revoked.",
)
_BLOCKED = ApiError(
    Refusal.BLOCKED_USER,
    "You are blocked in this tenant. Ask its administrators; another key does not help.",
)
_KEYS_UNAVAILABLE = ApiError(
    Refusal.UNAVAILABLE, "The gateway cannot check this API key right now. Try again."
)
_TWO_KEYS = ApiError(
    Refusal.BAD_KEY,
    "The request has two different API keys. Send one key, in one header.",
)
_LONG_TOKEN = ApiError(
    Refusal.BAD_TOKEN, f"The token has more than {MAX_TOKEN_BYTES} bytes. Ask for fewer claims."
)
_NO_ISSUERS = ApiError(
    Refusal.BAD_TOKEN,
    "This is a token, but the gateway takes only API keys: its policy has no `issuers`.",
)
