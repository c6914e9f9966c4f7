"""The decision of ext_authz about the caller of a request, without its transport."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from headgate.core.apis import ENDPOINTS, Api, ErrorShape, door_of
from headgate.core.errors import ApiError, Refusal
from headgate.core.keys import digest_of
from headgate.core.policy import Caller, CompiledPolicy

_AUTHORIZATION = "authorization"
_SCHEME = b"bearer"
_BLANKS = b" \t"
_MAX_KEY_BYTES = 512


@dataclass(frozen=True, slots=True)
class CheckInput:
    """One request to authenticate.

    `credentials` holds the name in lower case and the raw value of each credential header, in their
    order, with repeated headers. `address` is the client's address as the proxy knows it; it does
    not identify the caller.
    """

    method: str
    path: str
    credentials: tuple[tuple[str, bytes], ...]
    address: str = ""


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may pass: its caller and its API."""

    caller: Caller
    api: Api


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The request ends here. `headers` are the headers that its status requires (RFC 9110).

    `anonymous`: it came without a known key. `recorded`: it gets a usage record.
    """

    error: ApiError
    shape: ErrorShape
    headers: tuple[tuple[str, str], ...] = ()
    anonymous: bool = True
    recorded: bool = True


CheckResult = Allow | Deny


def decide(request: CheckInput, policy: CompiledPolicy) -> CheckResult:
    """Allows a request for a known path with exactly one known API key."""
    door = door_of(request.path)
    caller = _authenticate(request.credentials, policy)
    anonymous = isinstance(caller, ApiError)
    if door.endpoint is None:
        return Deny(error=_UNKNOWN_PATH, shape=door.shape, anonymous=anonymous)
    if request.method not in door.endpoint.methods:
        return _wrong_method(door.endpoint.methods, door.shape, anonymous)
    if isinstance(caller, ApiError):
        return Deny(error=caller, shape=door.shape, headers=(("www-authenticate", "Bearer"),))
    return Allow(caller, door.endpoint.api)


def ending(request: CheckInput) -> Deny:
    """The refusal of every request while the gateway ends. The official clients try again."""
    error = ApiError(Refusal.UNAVAILABLE, "The gateway is shutting down. Try again.")
    shape, headers = door_of(request.path).shape, (("retry-after", "1"),)
    return Deny(error=error, shape=shape, headers=headers, anonymous=False)


def too_many_failures(shape: ErrorShape, wait_s: float) -> Deny:
    """The refusal of an anonymous request beyond `FailureLimit`, in place of its own refusal.

    The official clients retry after a 429 but never after a 401; `x-should-retry` makes them treat
    this 429 like a 401. It gets no usage record, because a flood of records would fill the disk.
    """
    seconds = max(1, math.ceil(wait_s))
    message = (
        "Your address has sent too many requests without a known API key. A request with a known"
        f" key passes at any time. To learn what is wrong with your key, try again in {seconds} s."
    )
    error = ApiError(Refusal.TOO_MANY_FAILURES, message)
    headers = (("retry-after", str(seconds)), ("x-should-retry", "false"))
    return Deny(error=error, shape=shape, headers=headers, recorded=False)


def _authenticate(
    credentials: Iterable[tuple[str, bytes]], policy: CompiledPolicy
) -> Caller | ApiError:
    """The caller of the request's only key, or the error in its keys."""
    keys = set(_keys(credentials))
    if not keys:
        return _NO_KEY
    if len(keys) > 1:
        return _TWO_KEYS
    return _caller_of(keys.pop(), policy) or _BAD_KEY


def _keys(credentials: Iterable[tuple[str, bytes]]) -> Iterable[bytes]:
    """Every API key of the request. A scheme other than Bearer carries no key."""
    for name, value in credentials:
        if name != _AUTHORIZATION:
            yield value.strip(_BLANKS)
        else:
            # The scheme is case-insensitive and ends at the first blank (RFC 9110, 11.1).
            scheme, _, token = value.strip(_BLANKS).replace(b"\t", b" ").partition(b" ")
            if scheme.lower() == _SCHEME:
                yield token.strip(_BLANKS)


def _caller_of(key: bytes, policy: CompiledPolicy) -> Caller | None:
    """The caller of an API key; None for an unknown key, and for a tenant that was removed."""
    if not key or len(key) > _MAX_KEY_BYTES or not key.isascii():
        return None
    # The key itself is never compared. The time of the look-up may depend on the digest of the
    # sent text. The digest does not tell how similar the text is to a key.
    caller = policy.keys.get(digest_of(key))
    if caller is None or caller.tenant not in policy.tenants:
        return None
    return caller


def _wrong_method(methods: frozenset[str], shape: ErrorShape, anonymous: bool) -> Deny:
    allowed = ", ".join(sorted(methods))
    error = ApiError(Refusal.WRONG_METHOD, f"This path accepts only {allowed}.")
    headers = (("allow", allowed),)
    return Deny(error=error, shape=shape, headers=headers, anonymous=anonymous)


_UNKNOWN_PATH = ApiError(
    Refusal.UNKNOWN_PATH,
    f"Headgate does not serve this path. It serves {', '.join(ENDPOINTS)}.",
)
_NO_KEY = ApiError(
    Refusal.NO_KEY,
    "The request has no API key. Send it as `Authorization: Bearer YOUR_KEY`, or in the header"
    " `x-api-key` or `api-key`.",
)
_BAD_KEY = ApiError(
    Refusal.BAD_KEY,
    "The API key is unknown. Check that you copied all of it and that it has not been revoked.",
)
_TWO_KEYS = ApiError(
    Refusal.BAD_KEY,
    "The request has two different API keys. Send one key, in one header.",
)
