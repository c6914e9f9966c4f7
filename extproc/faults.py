"""The causes for which a body is not read, each with its own words."""

from collections.abc import Mapping

from extproc.asked import read_whole
from extproc.types import Value
from headgate.core.contract import RequestKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.sizes import too_large

_OBJECT = "Send one JSON object."
FAULTS: Mapping[str, str] = {
    "empty": f"The request needs a JSON body, and this one is empty. {_OBJECT}",
    "no_type": "The header `content-type` is missing. Send `content-type: application/json`.",
    "type": "The header `content-type` is not `application/json`, the only type of this API.",
    "not_object": f"The body is JSON, but not an object. {_OBJECT}",
    "cut": "The body ends before its JSON does. Send all of it.",
    "behind": f"The body goes on behind its JSON object. {_OBJECT}",
    "comma": "The body is not JSON: a comma has no value behind it.",
    "syntax": "The body is not JSON.",
    "escape": "The body is not JSON: a string has an unknown escape.",
    "control": "The body is not JSON: a string has a control character that is not escaped.",
    "surrogate": "A string has half of a surrogate pair, which stands for no character.",
    "utf8": "The body is not UTF-8.",
    "number": "The body has a number that JSON has no way to write, or that is too large.",
    "depth": "The body has more than 1,000 lists and objects within each other.",
}
"""The text for each value of `RequestKey.FAULT`, but for compressed bodies and forms."""

_NO_BODY = ApiError(
    Refusal.BAD_REQUEST,
    "The request needs a JSON body, with the header `content-type: application/json`.",
)
# Older EnvoyFilters report `unreadable` for a body with another content type, too.
_NOT_JSON = ApiError(
    Refusal.BAD_REQUEST,
    "The body is not a JSON object, or its header `content-type` is not `application/json`.",
)


def unread_body(values: Mapping[str, Value]) -> ApiError:
    """The error for a body that was not read as JSON, with its cause if the reader named one."""
    fault = values.get(RequestKey.FAULT)
    body = values.get(RequestKey.BODY)
    if not isinstance(fault, str) or fault not in FAULTS:
        return _NO_BODY if body is None else _NOT_JSON
    at = read_whole(values.get(RequestKey.FAULT_AT))
    place = "" if at is None else f" (at byte {at})"
    return ApiError(Refusal.BAD_REQUEST, FAULTS[fault] + place)


def large_body(values: Mapping[str, Value]) -> ApiError:
    """The error for a body that was dropped unread; the reader tells the limit as its place."""
    limit_bytes = read_whole(values.get(RequestKey.FAULT_AT)) or 0
    return ApiError(Refusal.TOO_LARGE, too_large(limit_bytes))


def compressed_body(values: Mapping[str, Value]) -> ApiError:
    """The error for a body with a content-encoding. vLLM would read the compressed bytes."""
    encoding = values.get(RequestKey.ENCODING)
    return ApiError(
        Refusal.COMPRESSED_BODY,
        f"The body has the content-encoding {encoding}, which is not supported here. Send it"
        " uncompressed, without the header `content-encoding`.",
    )
