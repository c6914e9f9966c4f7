"""Who is calling? The decision of ext_authz, without its transport."""

from collections.abc import Iterable
from dataclasses import dataclass

from headgate.apis import ENDPOINTS, Api, Endpoint, ErrorShape, endpoint_of, error_shape_of
from headgate.errors import ApiError, Refusal
from registry.keys import digest_of
from registry.types import Caller, Registry

_AUTHORIZATION = "authorization"
_SCHEME = b"bearer"
_BLANKS = b" \t"
_MAX_KEY_BYTES = 512


@dataclass(frozen=True, slots=True)
class CheckInput:
    """One request at the door.

    `credentials` holds (name in lower case, raw value) of each credential header, in the
    order in which they came, repeated ones included.
    """

    method: str
    path: str
    credentials: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Admit:
    """The request may pass: who sent it, to which API."""

    caller: Caller
    api: Api


@dataclass(frozen=True, slots=True)
class Deny:
    """The request ends here. `headers` are those that the status calls for (RFC 9110)."""

    error: ApiError
    shape: ErrorShape
    headers: tuple[tuple[str, str], ...] = ()


Decision = Admit | Deny


def decide(request: CheckInput, registry: Registry) -> Decision:
    """Lets a request pass that asks for a known path with exactly one known API key."""
    shape = error_shape_of(request.path)
    endpoint = endpoint_of(request.path)
    if endpoint is None:
        return Deny(_UNKNOWN_PATH, shape)
    if request.method not in endpoint.methods:
        return _wrong_method(endpoint, shape)
    keys = set(_keys(request.credentials))
    if not keys:
        return _unauthorized(_NO_KEY, shape)
    if len(keys) > 1:
        return _unauthorized(_TWO_KEYS, shape)
    caller = _caller_of(keys.pop(), registry)
    if caller is None:
        return _unauthorized(_BAD_KEY, shape)
    return Admit(caller, endpoint.api)


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


def _caller_of(key: bytes, registry: Registry) -> Caller | None:
    """The caller of an API key; None for an unknown one, and once its tenant is gone."""
    if not key or len(key) > _MAX_KEY_BYTES or not key.isascii():
        return None
    # Looking up a digest leaks no timing about the key itself.
    caller = registry.keys.get(digest_of(key))
    if caller is None or caller.tenant not in registry.tenants:
        return None
    return caller


def _unauthorized(error: ApiError, shape: ErrorShape) -> Deny:
    return Deny(error, shape, (("www-authenticate", "Bearer"),))


def _wrong_method(endpoint: Endpoint, shape: ErrorShape) -> Deny:
    allowed = ", ".join(sorted(endpoint.methods))
    error = ApiError(Refusal.WRONG_METHOD, f"This path takes {allowed} only.")
    return Deny(error, shape, (("allow", allowed),))


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
