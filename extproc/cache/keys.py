"""The key of an answer: a keyed digest of everything that the answer depends on. Pure.

The body is read as vLLM reads it, by Python's own JSON: integers of any length stay exact. Orjson
and msgspec read those beyond 64 bits as floats, so that two seeds would share a key.
"""

import hmac
import json
from collections.abc import Mapping
from math import isinf

from extproc.types import Caching
from headgate.core.apis import Api
from headgate.core.contract import AdmissionKey

_PURPOSE = "headgate answer cache 1"
_OF_ANSWER = (
    AdmissionKey.MODEL,
    AdmissionKey.BASE,
    AdmissionKey.SERVED_AS,
    AdmissionKey.ADAPTER,
    AdmissionKey.VERSION,
)
_MOST_INTEGER = 2**64
_WITH_SEED = frozenset({Api.CHAT, Api.COMPLETIONS})
"""The APIs whose vLLM takes a seed."""
_SAMPLED = _WITH_SEED | {Api.MESSAGES}


class OddBodyError(Exception):
    """Two readers could understand this body differently, so no answer to it is kept."""


def tenant_key(secret: bytes, tenant: str) -> bytes:
    """The tenant's own key, 32 bytes. Nobody who knows one can make another from it."""
    return hmac.digest(secret, f"{_PURPOSE}\0{tenant}".encode(), "sha256")


def read_body(body: bytes) -> dict[str, object]:
    """The JSON object in a body.

    Raises OddBodyError for a repeated name, an integer above 64 bits, a number without a value
    (NaN, infinity), or what is no object at all.
    """
    try:
        value = _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise OddBodyError(str(error)) from None
    if not isinstance(value, dict):
        raise OddBodyError("not an object")
    return value


def is_deterministic(api: Api, body: Mapping[str, object]) -> bool:
    """Whether the same body always asks for the same answer.

    The temperature is 0, or there is a seed, and one answer is asked for. An embedding draws no
    lots. A value of another type may mean something else to vLLM, so it counts as no.
    """
    if api not in _SAMPLED:
        return True
    if body.get("n", 1) not in (1, None) or body.get("best_of", 1) not in (1, None):
        return False
    temperature, seed = body.get("temperature"), body.get("seed")
    is_cold = type(temperature) in (int, float) and temperature == 0
    return is_cold or (api in _WITH_SEED and type(seed) is int)


def answer_key(
    key: bytes, caching: Caching, admission: Mapping[AdmissionKey, str], body: Mapping[str, object]
) -> str:
    """The key of the answer to this body, in hex. `key` is the tenant's own.

    It covers the path, and the model that was resolved, with its adapter and version. It covers all
    of the body as vLLM gets it, whatever the order of its members.
    """
    model = [admission.get(name) for name in _OF_ANSWER]
    # As a list no part can be taken for the end of another one.
    text = json.dumps([caching.path, model, body], sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, text.encode(), "sha256").hex()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _integer(text: str) -> int:
    number = int(text)
    if abs(number) >= _MOST_INTEGER:
        raise ValueError("an integer above 64 bits")
    return number


def _float(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("a number that is too large")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
