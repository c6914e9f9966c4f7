"""The decision of ext_authz about the caller of a request, without its transport."""

import math
from dataclasses import dataclass, replace

from msgspec import Struct

from extauthz import cors
from extauthz.identify import Identity, Verifier, identify
from extauthz.request import CheckInput
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
from headgate.core.issuers import KeysNeeded
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.policy import Caller, CompiledPolicy

_CHALLENGES = {Refusal.NO_KEY: "Bearer", Refusal.BAD_KEY: "Bearer"}
_OTHER_CHALLENGE = 'Bearer error="invalid_token"'


class Allow(Struct, frozen=True, gc=False):
    """The request may pass: its caller, its API, and the caller's name for people to read."""

    caller: Caller
    api: Api
    display_name: str = ""


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


def decide(
    request: CheckInput, policy: CompiledPolicy, verifier: Verifier, keys: KeyRing = NO_KEYS
) -> CheckResult | KeysNeeded:
    """Allows a request for a known path with exactly one known key or token, or of a workload.

    A key of the policy file goes before one of `keys`, which were issued at run time.

    With KeysNeeded the keys of an issuer have to be fetched first; see `decided`.
    """
    door = door_of(request.path)
    if request.method == "OPTIONS":
        return _options(request, door, policy)
    caller = identify(request, policy, verifier, keys)
    if isinstance(caller, KeysNeeded):
        return caller
    return _at_door(request, door, caller, policy)


async def decided(
    request: CheckInput, policy: CompiledPolicy, verifier: Verifier, keys: KeyRing = NO_KEYS
) -> CheckResult:
    """The decision. It waits only for keys that a token needs and nobody has fetched yet."""
    result = decide(request, policy, verifier, keys)
    if isinstance(result, KeysNeeded):
        await verifier.fetch_keys(result)
        result = decide(request, policy, verifier, keys)
    if isinstance(result, KeysNeeded):
        return _unknown_caller(_NO_KEYS_YET, door_of(request.path).shape)
    return result


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


def _at_door(
    request: CheckInput, door: Door, caller: Identity | ApiError, policy: CompiledPolicy
) -> CheckResult:
    anonymous = isinstance(caller, ApiError)
    if door.endpoint is None:
        return _not_served(request, door.shape, policy, counted=anonymous)
    if request.opens_websocket:
        return _no_websocket(door.shape, counted=anonymous)
    if request.method not in door.endpoint.methods:
        return _wrong_method(door.endpoint.methods, door.shape, counted=anonymous)
    if isinstance(caller, ApiError):
        return _unknown_caller(caller, door.shape)
    return Allow(caller.caller, door.endpoint.api, caller.display_name)


def _unknown_caller(error: ApiError, shape: ErrorShape) -> Deny:
    """A 401 says what it wants (RFC 9110, 11.6.1; for tokens RFC 6750, 3).

    A 400 comes with a known key, as does a blocked user, so it does not count. Neither does a 503,
    for which the client is not to blame; as anybody may cause one, it gets no record.
    """
    if error.refusal is Refusal.UNAVAILABLE:
        retry = (("retry-after", "1"),)
        return Deny(error=error, shape=shape, headers=retry, counted=False, recorded=False)
    challenge = _CHALLENGES.get(error.refusal, _OTHER_CHALLENGE)
    headers = (("www-authenticate", challenge),) if error.refusal.status == 401 else ()
    is_counted = error.refusal not in _OF_KNOWN_KEYS
    return Deny(error=error, shape=shape, headers=headers, counted=is_counted)


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


_OF_KNOWN_KEYS = frozenset({Refusal.BAD_END_USER, Refusal.BLOCKED_USER})
_READS = frozenset({"GET", "HEAD"})
_ALL_METHODS = frozenset().union(*(endpoint.methods for endpoint in ENDPOINTS.values()))
_HEALTHY = Answer("health", 200)
_FORBIDDEN_ORIGIN = ApiError(
    Refusal.FORBIDDEN_ORIGIN,
    "Pages of this origin may not call from a browser. The operator can add it to `cors.origins`.",
)
_NO_KEYS_YET = ApiError(
    Refusal.UNAVAILABLE, "The keys of the token's issuer are not here yet. Try again."
)
_NO_WEBSOCKET = ApiError(
    Refusal.NO_WEBSOCKET,
    "This path serves no WebSocket. Send the request over plain HTTP; it may be streamed.",
)
