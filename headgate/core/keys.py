"""API keys: makes new ones, and computes the digest that identifies a key.

Only the SHA-256 digest of a key is ever stored. A plain digest without salt or
stretching is enough, as a key has 192 random bits and cannot be guessed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

SECRET_PREFIX = "sk-"  # noqa: S105
"""The start of every key, as OpenAI clients and secret scanners expect it."""

_KEY_PREFIX = SECRET_PREFIX + "hg-"
_RANDOM_BYTES = 24
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A new key. `secret` is shown to its owner once and stored nowhere."""

    secret: str = field(repr=False)
    digest: bytes

    @property
    def id(self) -> str:
        """The key's name in usage records, unless the policy gives it another."""
        return default_id(self.digest)


def new_key(random_bytes: Callable[[int], bytes]) -> ApiKey:
    """Makes a key from `random_bytes(size)`, which must be safe for secrets (`os.urandom`)."""
    secret = _KEY_PREFIX + random_bytes(_RANDOM_BYTES).hex()
    return ApiKey(secret, digest_of(secret))


def digest_of(secret: str | bytes) -> bytes:
    """The 32 bytes that identify the key in the policy, computed from the text of a client."""
    raw = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return hashlib.sha256(raw).digest()


def default_id(digest: bytes) -> str:
    """The first 12 hex digits of the digest.

    Of 350,000 tenants with 40,000 keys each, one tenant has two keys with the same digits.
    """
    return digest.hex()[:_ID_DIGITS]
