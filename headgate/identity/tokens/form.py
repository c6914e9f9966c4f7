"""The form of a token (RFC 7519 in the compact form of RFC 7515), read strictly.

Nothing here is verified yet. Libraries let several of these forms pass: members that occur twice,
extensions that they do not know, and several spellings of one signature.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from headgate.core.issuers import MAX_TOKEN_BYTES
from headgate.identity.tokens.errors import Reason, TokenError, shown

Members: TypeAlias = Mapping[str, Any]

_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_NOT_A_JWT = "The token is not a signed JWT in its compact form. Send it exactly as it was issued."


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token in its parts. `signed` is what the signature covers."""

    header: Members
    claims: Members
    signed: bytes
    signature: bytes

    @property
    def algorithm(self) -> str:
        return str(self.header["alg"])

    @property
    def key_id(self) -> str:
        return str(self.header.get("kid", ""))


def read(raw: bytes) -> Token:
    """Reads a token of at most `MAX_TOKEN_BYTES`. Raises TokenError."""
    if len(raw) > MAX_TOKEN_BYTES:
        raise TokenError(Reason.MALFORMED, f"The token has more than {MAX_TOKEN_BYTES} bytes.")
    if not raw.isascii() or raw.count(b".") != 2:
        raise TokenError(Reason.MALFORMED, _NOT_A_JWT)
    signed, _, signature = raw.rpartition(b".")
    header, _, claims = signed.partition(b".")
    token = Token(
        header=_object(_decoded(header)),
        claims=_object(_decoded(claims)),
        signed=signed,
        signature=_decoded(signature),
    )
    _check_header(token.header)
    return token


def _decoded(part: bytes) -> bytes:
    """The bytes of one part. Only the one canonical spelling passes (RFC 4648, 3.5)."""
    try:
        data = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except (Base64Error, ValueError):
        raise TokenError(Reason.MALFORMED, _NOT_A_JWT) from None
    if urlsafe_b64encode(data).rstrip(b"=") != part:
        raise TokenError(Reason.MALFORMED, _NOT_A_JWT)
    return data


def _object(data: bytes) -> Members:
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenError(Reason.MALFORMED, _NOT_A_JWT) from None
    if not isinstance(value, dict):
        raise TokenError(Reason.MALFORMED, _NOT_A_JWT)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two members of one name may be read differently by two programs (RFC 8725, 2.10)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise TokenError(Reason.DUPLICATE_MEMBER, "The token has a member twice.")
    return members


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _check_header(header: Members) -> None:
    if "crit" in header or "b64" in header:
        message = "The token's header has `crit` or `b64`, and Headgate knows no such extension."
        raise TokenError(Reason.CRITICAL_HEADER, message)
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES or "cty" in header:
        message = f"The token's `typ` is {shown(kind)}. Send an access token or an ID token."
        raise TokenError(Reason.TYPE, message)
    if not isinstance(header.get("alg"), str) or not isinstance(header.get("kid", ""), str):
        raise TokenError(Reason.MALFORMED, _NOT_A_JWT)
