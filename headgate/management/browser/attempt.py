"""One attempt to log in at an issuer. All of it follows from one random cookie. Pure.

So no row exists before somebody has logged in, and nobody can fill the database from outside.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""The form of a random value of 32 bytes in a cookie."""
LOGIN_PATH = "/login"
_LANDING = re.compile(r"/console(/[A-Za-z0-9._~%/:@+-]*)?(\?[A-Za-z0-9._~%/:@+=&-]*)?")
_MAX_LANDING = 512


@dataclass(frozen=True, slots=True)
class Attempt:
    """`secret` is the random part of the cookie, and `landing` the page after the login."""

    secret: str
    landing: str

    def state(self, issuer: str) -> str:
        """The `state` at this issuer (its name): a callback for another one does not fit."""
        return self._derived("state", issuer)

    def nonce(self, issuer: str) -> str:
        """The `nonce` that the ID token must repeat (OpenID Connect Core 1.0, 15.5.2)."""
        return self._derived("nonce", issuer)

    def verifier(self, issuer: str) -> str:
        """The code verifier of PKCE (RFC 7636, 4.1)."""
        return self._derived("verifier", issuer)

    def challenge(self, issuer: str) -> str:
        """The code challenge of the method S256 (RFC 7636, 4.2)."""
        return _text(sha256(self.verifier(issuer).encode()).digest())

    def cookie(self) -> str:
        """The value of the cookie."""
        return f"{self.secret}.{_text(self.landing.encode())}"

    def _derived(self, purpose: str, issuer: str) -> str:
        return _text(hmac.digest(self.secret.encode(), f"{purpose}\0{issuer}".encode(), "sha256"))


def attempt_of(cookie: str) -> Attempt | None:
    """The attempt in a cookie; None for anything else."""
    secret, _, encoded = cookie.partition(".")
    if SECRET.fullmatch(secret) is None:
        return None
    try:
        landing = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
    except (Base64Error, ValueError):
        return None
    return Attempt(secret, landing_of(landing))


def landing_of(path: str) -> str:
    """The page after a login: one of our own, so that nobody is led to another site."""
    is_ours = len(path) <= _MAX_LANDING and _LANDING.fullmatch(path)
    return path if is_ours and "//" not in path else LOGIN_PATH


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
