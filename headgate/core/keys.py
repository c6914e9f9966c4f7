"""API keys: how they are made, and the digest by which they are known.

Only the SHA-256 digest of a key is ever stored. A plain digest without salt or
stretching is enough, as the keys carry 192 random bits and cannot be guessed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

SECRET_PREFIX = "sk-"  # noqa: S105
"""What every key begins with, as the OpenAI clients and secret scanners expect."""

_KEY_PREFIX = SECRET_PREFIX + "hg-"
_RANDOM_BYTES = 24
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A fresh key. `secret` is shown to its owner once and kept nowhere."""

    secret: str = field(repr=False)
    digest: bytes

    @property
    def id(self) -> str:
        """The key's name in usage records, unless the policy gives it another."""
        return default_id(self.digest)


def new_key(random_bytes: Callable[[int], bytes]) -> ApiKey:
    """Makes a key from `random_bytes(size)`, which must be fit for secrets (`os.urandom`)."""
    secret = _KEY_PREFIX + random_bytes(_RANDOM_BYTES).hex()
    return ApiKey(secret, digest_of(secret))


def digest_of(secret: str | bytes) -> bytes:
    """The 32 bytes by which the policy knows a key, from what a client sent."""
    raw = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return hashlib.sha256(raw).digest()


def default_id(digest: bytes) -> str:
    """The first 12 hex digits of the digest: of 350,000 tenants with 40,000 keys each, one has
    two keys that share them."""
    return digest.hex()[:_ID_DIGITS]
