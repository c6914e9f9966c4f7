"""The key set that an issuer publishes (RFC 7517), read one key at a time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, RSAKey

from headgate.identity.tokens.signature import SigningKey

MAX_KEYS = 100
MIN_RSA_BITS = 2048
_MAX_ID = 256
_CURVES = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("Ed25519", "EdDSA"),
}


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer by their ids, and the number of those that are not usable."""

    keys: Mapping[str, SigningKey]
    skipped: int = 0


def read_keys(document: bytes, algorithms: tuple[str, ...]) -> KeySet:
    """The keys in a document that verify one of `algorithms`.

    A key that is broken, private, too short, for encryption, or without an id is skipped. It costs
    no other key. Raises ValueError if the document is not a set of at most `MAX_KEYS` keys.
    """
    value = json.loads(document)
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"not a set of at most {MAX_KEYS} keys")
    keys: dict[str, SigningKey] = {}
    for entry in listed:
        key = _key(entry, algorithms)
        if key is not None:
            keys.setdefault(entry["kid"], key)
    return KeySet(keys, len(listed) - len(keys))


def _key(entry: Any, algorithms: tuple[str, ...]) -> SigningKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _MAX_ID:
        return None
    algorithm = _algorithm(entry, algorithms)
    if algorithm is None:
        return None
    public = {name: value for name, value in entry.items() if name not in ("alg", "use", "key_ops")}
    try:
        key = JWKRegistry.import_key(public)
        if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return SigningKey(algorithm, key)


def _algorithm(entry: Mapping[str, Any], algorithms: tuple[str, ...]) -> str | None:
    """The one algorithm of a key: its own, or else the first allowed one of its type.

    The keys of Entra ID name none. Such a key must not verify whatever a token asks for.
    """
    match entry.get("kty"):
        case "RSA":
            possible = tuple(name for name in algorithms if name.startswith(("RS", "PS")))
        case "EC" | "OKP":
            possible = tuple(n for n in _CURVES.get(str(entry.get("crv")), ()) if n in algorithms)
        case _:
            possible = ()
    named = entry.get("alg")
    if named is None:
        return possible[0] if possible else None
    return named if named in possible else None
