"""The ID token that answers a login (OpenID Connect Core 1.0, 3.1.3.7). Pure."""

import hmac
from dataclasses import dataclass

from headgate.core.issuers import Issuer
from headgate.identity.tokens.errors import Reason, TokenError
from headgate.identity.tokens.form import Token


@dataclass(frozen=True, slots=True)
class Expected:
    """The client that has asked for the login, and the nonce that it has sent."""

    client_id: str
    nonce: str


def check_id_token(token: Token, issuer: Issuer, expected: Expected) -> None:
    """Raises TokenError unless the token is for this client and for this login."""
    claims = token.claims
    if claims.get("iss") != issuer.url:
        raise TokenError(Reason.UNKNOWN_ISSUER, "The ID token is of another issuer.")
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp", expected.client_id if len(listed) == 1 else None)
    if expected.client_id not in listed or party != expected.client_id:
        raise TokenError(Reason.AUDIENCE, "The ID token is for another client.")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(
        nonce.encode("utf-8", "replace"), expected.nonce.encode()
    ):
        raise TokenError(Reason.CLAIM, "The ID token answers another login. Log in again.")
