"""Changes top-level members of a JSON request body and copies every other value unchanged.

Values are copied as raw bytes: nothing below the top level is decoded. A prompt of 10 MB costs
milliseconds, and vLLM gets exactly the client's bytes.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from extproc.types import Rewrite
from headgate.core.contract import CACHE_SALT

_BOM = b"\xef\xbb\xbf"
_OPTIONS = "stream_options"
_MAX_SALT_CHARS = 1024  # vLLM's bound
_BAD_SALT = f"`{CACHE_SALT}` must be a string of 1 to {_MAX_SALT_CHARS} characters."
_USAGE_IN_EVERY_CHUNK = {"include_usage": b"true", "continuous_usage_stats": b"true"}

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class SpliceError(ValueError):
    """The body cannot be rewritten. The text tells the client why; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def rewrite_body(body: bytes, rewrite: Rewrite) -> bytes:
    """The body with `rewrite` done. The client's other stream options stay.

    Raises SpliceError if the body or its `stream_options` is not a JSON object, or if the client's
    own salt is not valid.
    """
    members = _read(body)
    for name in rewrite.drop:
        members.pop(name, None)
    if rewrite.salt_tenant is not None:
        sent = bytes(members.get(CACHE_SALT, b"null"))
        salt = cache_salt(rewrite.salt_tenant, own_salt(sent))
        members[CACHE_SALT] = msgspec.Raw(msgspec.json.encode(salt))
    if rewrite.model is not None:
        members["model"] = msgspec.Raw(msgspec.json.encode(rewrite.model))
    if rewrite.force_usage:
        options = bytes(members.get(_OPTIONS, b"null"))
        if options == b"null":
            options = b"{}"
        try:
            members[_OPTIONS] = msgspec.Raw(splice(options, _USAGE_IN_EVERY_CHUNK))
        except SpliceError as error:
            raise bad_options() from error
    return msgspec.json.encode(members)


def bad_options() -> SpliceError:
    """The error for `stream_options` of another type."""
    return SpliceError(f"`{_OPTIONS}` must be an object.", _OPTIONS)


def cache_salt(tenant: str, own: str = "") -> str:
    """The salt of a tenant, combined with the client's `own` salt.

    It needs no secret. Every salt that vLLM reads has passed here, so a client that knows another
    tenant's salt cannot use it.
    """
    return hashlib.sha256(f"headgate\0{tenant}\0{own}".encode()).hexdigest()


def own_salt(sent: bytes | str) -> str:
    """The client's own salt, from its JSON; "" if it is null. Raises SpliceError."""
    try:
        own = msgspec.json.decode(sent, type=str | None)
    except ValueError as error:
        raise SpliceError(_BAD_SALT, CACHE_SALT) from error
    if own is None:
        return ""
    if not 1 <= len(own) <= _MAX_SALT_CHARS:
        raise SpliceError(_BAD_SALT, CACHE_SALT)
    return own


def splice(body: bytes, members: Mapping[str, bytes]) -> bytes:
    """The JSON object `body` with these top-level `members` (name to JSON text) put in.

    If a name is repeated, its last value stays, as in Python's json and in vLLM. Names are compared
    decoded, so an escaped spelling is the same name. Raises SpliceError if `body` is not a JSON
    object.
    """
    ours = {name: msgspec.Raw(value) for name, value in members.items()}
    return msgspec.json.encode({**_read(body), **ours})


def _read(body: bytes) -> dict[str, msgspec.Raw]:
    """Every top-level member, the last value of each name."""
    try:
        return _object.decode(body.removeprefix(_BOM))
    except RecursionError as error:
        raise SpliceError("The body is nested too deeply.") from error
    except ValueError as error:  # msgspec's errors, and a name that is not UTF-8
        raise SpliceError("The body must be a JSON object.") from error
