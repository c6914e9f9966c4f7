"""The decision of ext_authz about the caller of a request, without its transport."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from extauthz import cors
from headgate.core.apis import (
    ENDPOINTS,
    HEALTH,
    WITHOUT_USAGE,
    Api,
    Door,
    ErrorShape,
    door_of,
    without_final_slash,
)
from headgate.core.errors import ApiError, Refusal, retry_headers
from headgate.core.key_ring import NO_KEYS, KeyRing, KeysUnavailableError
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
    not identify the caller. `page` holds the headers that a browser adds. `opens_websocket`: the
    client wants to go on as a WebSocket.
    """

    method: str
    path: str
    credentials: tuple[tuple[str, bytes], ...]
    address: str = ""
    page: cors.PageHeaders = cors.NO_PAGE
    opens_websocket: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may pass: its caller and its API."""

    caller: Caller
    api: Api


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The request ends here. `headers` are the headers that its status requires (RFC 9110).

    `counted`: it came without a known key, and counts against its address. `recorded`: it gets a
    usage record.
    """

    error: ApiError
    shape: ErrorShape
    headers: tuple[tuple[str, str], ...] = ()
    counted: bool = True
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The request ends here with this status, without a body, a key or a record.

    `kind` is its label in the metrics.
    """

    kind: str
    status: int
    headers: tuple[tuple[str, str], ...] = ()


CheckResult = Allow | Deny | Answer


def decide(request: CheckInput, policy: CompiledPolicy, keys: KeyRing = NO_KEYS) -> CheckResult:
    """Allows a request for a known path with exactly one known API key.

    A key of the policy file goes before one of `keys`, which were issued at run time.
    """
    door = door_of(request.path)
    if request.method == "OPTIONS":
        return _options(request, door, policy)
    caller = _authenticate(request.credentials, policy, keys)
    anonymous = isinstance(caller, ApiError)
    if door.endpoint is None:
        return _not_served(request, door.shape, policy, counted=anonymous)
    if request.opens_websocket:
        return _no_websocket(door.shape, counted=anonymous)
    if request.method not in door.endpoint.methods:
        return _wrong_method(door.endpoint.methods, door.shape, counted=anonymous)
    if isinstance(caller, ApiError):
        return Deny(error=caller, shape=door.shape, headers=_headers_of(caller))
    return Allow(caller, door.endpoint.api)


def ending(request: CheckInput) -> Deny:
    """The refusal of every request while the gateway ends. The official clients try again."""
    error = ApiError(Refusal.UNAVAILABLE, "The gateway is shutting down. Try again.")
    shape, headers = door_of(request.path).shape, (("retry-after", "1"),)
    return Deny(error=error, shape=shape, headers=headers, counted=False)


def too_many_failures(shape: ErrorShape, wait_s: float) -> Deny:
    """The refusal of an anonymous request beyond `FailureLimit`, in place of its own refusal.

    The official clients retry after a 429 but never after a 401; `x-should-retry` makes them treat
    this 429 like a 401, whatever the wait. It gets no usage record, because a flood of records
    would fill the disk.
    """
    seconds = max(1, math.ceil(wait_s))
    message = (
        "Your address has sent too many requests without a known API key. A request with a known"
        f" key passes at any time. To learn what is wrong with your key, try again in {seconds} s."
    )
    error = ApiError(Refusal.TOO_MANY_FAILURES, message)
    headers = tuple({**dict(retry_headers(seconds)), "x-should-retry": "false"}.items())
    return Deny(error=error, shape=shape, headers=headers, recorded=False)


def _headers_of(error: ApiError) -> tuple[tuple[str, str], ...]:
    if error is _KEYS_UNAVAILABLE:
        return tuple(retry_headers(1))
    return (("www-authenticate", "Bearer"),)


def _authenticate(
    credentials: Iterable[tuple[str, bytes]], policy: CompiledPolicy, keys: KeyRing
) -> Caller | ApiError:
    """The caller of the request's only key, or the error in its keys."""
    sent = set(_keys(credentials))
    if not sent:
        return _NO_KEY
    if len(sent) > 1:
        return _TWO_KEYS
    try:
        return _caller_of(sent.pop(), policy, keys) or _BAD_KEY
    except KeysUnavailableError:
        return _KEYS_UNAVAILABLE


def _keys(credentials: Iterable[tuple[str, bytes]]) -> Iterable[bytes]:
    """Every API key of the request. A scheme other than Bearer carries no key.

    An empty value is no key: clients send one if their setting is an empty text.
    """
    for name, value in credentials:
        key = _bearer_token(value) if name == _AUTHORIZATION else value.strip(_BLANKS)
        if key:
            yield key


def _bearer_token(value: bytes) -> bytes:
    """The token of an `authorization` header; empty if it has none, or has another scheme."""
    # The scheme is case-insensitive and ends at the first blank (RFC 9110, 11.1).
    scheme, _, token = value.strip(_BLANKS).replace(b"\t", b" ").partition(b" ")
    return token.strip(_BLANKS) if scheme.lower() == _SCHEME else b""


def _caller_of(key: bytes, policy: CompiledPolicy, keys: KeyRing) -> Caller | None:
    """The caller of an API key; None for an unknown key, and for a tenant that was removed.

    Raises KeysUnavailableError.
    """
    if len(key) > _MAX_KEY_BYTES or not key.isascii():
        return None
    # The key itself is never compared. The time of the look-up may depend on the digest of the
    # sent text. The digest does not tell how similar the text is to a key.
    digest = digest_of(key)
    caller = policy.keys.get(digest) or keys.find(digest)
    if caller is None or caller.tenant not in policy.tenants:
        return None
    return caller


def _options(request: CheckInput, door: Door, policy: CompiledPolicy) -> Deny | Answer:
    """The answer to OPTIONS, which a browser sends before a page's request, without its key.

    It is neither a failed key nor recorded: the browser alone sends it, and a page's every request
    may cause one.
    """
    if policy.cors_origins and request.page.is_preflight:
        if not cors.is_allowed(request.page.origin, policy.cors_origins):
            return _uncounted(Deny(error=_FORBIDDEN_ORIGIN, shape=door.shape))
        methods = _ALL_METHODS if door.endpoint is None else door.endpoint.methods
        return Answer("preflight", 204, cors.preflight_headers(request.page, methods))
    if door.endpoint is None:
        return _uncounted(_unknown_path(request.path, door.shape, policy))
    return _uncounted(_wrong_method(door.endpoint.methods, door.shape, counted=False))


def _uncounted(deny: Deny) -> Deny:
    return replace(deny, counted=False, recorded=False)


def _not_served(
    request: CheckInput, shape: ErrorShape, policy: CompiledPolicy, *, counted: bool
) -> Deny | Answer:
    if request.path.partition("?")[0] == HEALTH and request.method in _READS:
        return _HEALTHY
    return replace(_unknown_path(request.path, shape, policy), counted=counted)


def _unknown_path(path: str, shape: ErrorShape, policy: CompiledPolicy) -> Deny:
    """Names the paths that are served: those of closed APIs are not among them."""
    served = [
        known
        for known, endpoint in ENDPOINTS.items()
        if endpoint.api not in WITHOUT_USAGE or endpoint.api in policy.without_usage
    ]
    hint = without_final_slash(path)
    slash = f" Remove the slash at its end: {hint}." if hint in served else ""
    message = f"Headgate does not serve this path.{slash} It serves {', '.join(served)}."
    return Deny(error=ApiError(Refusal.UNKNOWN_PATH, message), shape=shape)


def _no_websocket(shape: ErrorShape, *, counted: bool) -> Deny:
    """The status at which Codex goes on over HTTP at once. Envoy sends no `upgrade` header."""
    headers = (("x-should-retry", "false"),)
    return Deny(error=_NO_WEBSOCKET, shape=shape, headers=headers, counted=counted)


def _wrong_method(methods: frozenset[str], shape: ErrorShape, *, counted: bool) -> Deny:
    allowed = ", ".join(sorted(methods))
    error = ApiError(Refusal.WRONG_METHOD, f"This path accepts only {allowed}.")
    return Deny(error=error, shape=shape, headers=(("allow", allowed),), counted=counted)


_READS = frozenset({"GET", "HEAD"})
_ALL_METHODS = frozenset().union(*(endpoint.methods for endpoint in ENDPOINTS.values()))
_HEALTHY = Answer("health", 200)
_FORBIDDEN_ORIGIN = ApiError(
    Refusal.FORBIDDEN_ORIGIN,
    "Pages of this origin may not call from a browser. The operator can add it to `cors.origins`.",
)
_NO_WEBSOCKET = ApiError(
    Refusal.NO_WEBSOCKET,
    "This path serves no WebSocket. Send the request over plain HTTP; it may be streamed.",
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
_KEYS_UNAVAILABLE = ApiError(
    Refusal.UNAVAILABLE, "The gateway cannot check this API key right now. Try again."
)
_TWO_KEYS = ApiError(
    Refusal.BAD_KEY,
    "The request has two different API keys. Send one key, in one header.",
)
