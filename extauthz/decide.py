"""Who is calling? The decision of ext_authz, without its transport."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from headgate.core.apis import ENDPOINTS, Api, Endpoint, ErrorShape, endpoint_of, error_shape_of
from headgate.core.errors import ApiError, Refusal
from headgate.core.keys import digest_of
from headgate.core.policy import Caller, CompiledPolicy

_AUTHORIZATION = "authorization"
_SCHEME = b"bearer"
_BLANKS = b" \t"
_MAX_KEY_BYTES = 512


@dataclass(frozen=True, slots=True)
class CheckInput:
    """One request at the door.

    `credentials` holds (name in lower case, raw value) of each credential header, in the
    order in which they came, repeated ones included. `address` is the client's, as the proxy
    knows it; it decides nothing about who is calling.
    """

    method: str
    path: str
    credentials: tuple[tuple[str, bytes], ...]
    address: str = ""


@dataclass(frozen=True, slots=True)
class Admit:
    """The request may pass: who sent it, to which API."""

    caller: Caller
    api: Api


@dataclass(frozen=True, slots=True)
class Deny:
    """The request ends here. `headers` are those that the status calls for (RFC 9110).

    `anonymous` where it came without a known key; `recorded` unless it leaves no usage record.
    """

    error: ApiError
    shape: ErrorShape
    headers: tuple[tuple[str, str], ...] = ()
    anonymous: bool = True
    recorded: bool = True


Decision = Admit | Deny


def decide(request: CheckInput, policy: CompiledPolicy) -> Decision:
    """Lets a request pass that asks for a known path with exactly one known API key."""
    shape = error_shape_of(request.path)
    caller = _authenticate(request.credentials, policy)
    anonymous = isinstance(caller, ApiError)
    endpoint = endpoint_of(request.path)
    if endpoint is None:
        return Deny(_UNKNOWN_PATH, shape, anonymous=anonymous)
    if request.method not in endpoint.methods:
        return _wrong_method(endpoint, shape, anonymous)
    if isinstance(caller, ApiError):
        return Deny(caller, shape, (("www-authenticate", "Bearer"),))
    return Admit(caller, endpoint.api)


def too_many_failures(shape: ErrorShape, wait_s: float) -> Deny:
    """What an anonymous request is told in place of its refusal, beyond `FailureLimit`.

    The official clients ask again after a 429, and never after a 401; `x-should-retry` tells
    them that this is the latter. There is no usage record of it, as a flood of them would
    fill the disk.
    """
    seconds = max(1, math.ceil(wait_s))
    message = (
        "Too many requests without a known API key came from your address. One with a known key"
        f" passes at any time; to be told what is wrong with yours, ask again in {seconds} s."
    )
    error = ApiError(Refusal.TOO_MANY_FAILURES, message)
    headers = (("retry-after", str(seconds)), ("x-should-retry", "false"))
    return Deny(error, shape, headers, recorded=False)


def _authenticate(
    credentials: Iterable[tuple[str, bytes]], policy: CompiledPolicy
) -> Caller | ApiError:
    """The caller of the one key that came, or what is wrong with the keys."""
    keys = set(_keys(credentials))
    if not keys:
        return _NO_KEY
    if len(keys) > 1:
        return _TWO_KEYS
    return _caller_of(keys.pop(), policy) or _BAD_KEY


def _keys(credentials: Iterable[tuple[str, bytes]]) -> Iterable[bytes]:
    """Every API key that the request carries. Another scheme than Bearer carries none."""
    for name, value in credentials:
        if name != _AUTHORIZATION:
            yield value.strip(_BLANKS)
        else:
            # The scheme is case-insensitive and ends at the first blank (RFC 9110, 11.1).
            scheme, _, token = value.strip(_BLANKS).replace(b"\t", b" ").partition(b" ")
            if scheme.lower() == _SCHEME:
                yield token.strip(_BLANKS)


def _caller_of(key: bytes, policy: CompiledPolicy) -> Caller | None:
    """The caller of an API key; None for an unknown one, and once its tenant is gone."""
    if not key or len(key) > _MAX_KEY_BYTES or not key.isascii():
        return None
    # The key itself is compared with nothing. How long the look-up takes may depend on the digest
    # of what was sent, which says nothing about how near it is to a key.
    caller = policy.keys.get(digest_of(key))
    if caller is None or caller.tenant not in policy.tenants:
        return None
    return caller


def _wrong_method(endpoint: Endpoint, shape: ErrorShape, anonymous: bool) -> Deny:
    allowed = ", ".join(sorted(endpoint.methods))
    error = ApiError(Refusal.WRONG_METHOD, f"This path takes {allowed} only.")
    return Deny(error, shape, (("allow", allowed),), anonymous)


_UNKNOWN_PATH = ApiError(
    Refusal.UNKNOWN_PATH,
    f"This path is not served here. The paths are {', '.join(ENDPOINTS)}.",
)
_NO_KEY = ApiError(
    Refusal.NO_KEY,
    "No API key came with this request. Send it as `Authorization: Bearer YOUR_KEY`,"
    " or in the header `x-api-key` or `api-key`.",
)
_BAD_KEY = ApiError(
    Refusal.BAD_KEY,
    "This API key is not known here. Check that it was copied whole and has not been revoked.",
)
_TWO_KEYS = ApiError(
    Refusal.BAD_KEY,
    "Two different API keys came with this request. Send one, in one header.",
)
