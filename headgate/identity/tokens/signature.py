"""The signature of a token: by a key of its issuer, with the one algorithm of that key."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from headgate.core.issuers import Issuer
from headgate.identity.tokens.errors import Reason, TokenError, shown
from headgate.identity.tokens.form import Token


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key, bound to one algorithm when it is loaded. A token cannot choose another."""

    algorithm: str
    key: Key = field(repr=False)


def check_signature(token: Token, keys: Mapping[str, SigningKey], issuer: Issuer) -> None:
    """Raises TokenError unless a key of the issuer has signed the token.

    Addresses in the header (`jku`, `x5u`) and keys in it (`jwk`, `x5c`) are never read.
    """
    key = keys.get(token.key_id)
    if key is None:
        message = (
            f"The issuer {issuer.alias} publishes no key {shown(token.key_id)} that Headgate can"
            " use. Get a new token."
        )
        raise TokenError(Reason.UNKNOWN_KEY, message)
    if token.algorithm != key.algorithm:
        message = (
            f"The token's algorithm is {shown(token.algorithm)}, but its key signs with"
            f" {key.algorithm}. Allowed: `issuers.{issuer.alias}.algorithms`."
        )
        raise TokenError(Reason.ALGORITHM, message)
    model = JWSRegistry.algorithms[key.algorithm]
    if not model.verify(token.signed, token.signature, key.key):
        raise TokenError(Reason.SIGNATURE, "The token's signature is wrong.")


def is_signed_with(token: Token, secret: bytes) -> bool:
    """Whether the token is signed by HS256 with this secret."""
    expected = hmac.digest(secret, token.signed, "sha256")
    return token.algorithm == "HS256" and hmac.compare_digest(expected, token.signature)
