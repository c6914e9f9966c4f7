"""The order of pods for a key: the same in each replica. A pod that leaves moves only its own keys.

Rendezvous hashing (D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates",
1998). Pure.
"""

import hashlib
from functools import lru_cache


@lru_cache(maxsize=8_192)
def ordered(key: str, pods: tuple[str, ...]) -> tuple[str, ...]:
    """The pods with the highest hash together with the key first."""
    return tuple(sorted(pods, key=lambda pod: (_score(key, pod), pod), reverse=True))


def _score(key: str, pod: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{pod}".encode(), digest_size=8).digest()
