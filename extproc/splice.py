"""Changes top-level members of a JSON request body and copies every other value as it came.

Values are cut out and put back as raw bytes: nothing below the top level is decoded, so
that a prompt of 10 MB costs milliseconds, and what vLLM sees of it is what the client sent.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from headgate.core.contract import CACHE_SALT

_BOM = b"\xef\xbb\xbf"
_OPTIONS = "stream_options"
_MAX_SALT_CHARS = 1024  # vLLM's bound
_BAD_SALT = f"`{CACHE_SALT}` must be a string of 1 to {_MAX_SALT_CHARS} characters."
_USAGE_IN_EVERY_CHUNK = {"include_usage": b"true", "continuous_usage_stats": b"true"}

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class SpliceError(ValueError):
    """The body cannot be rewritten; the text tells the client why, `param` which field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What must change in a body.

    The model's name (None: nothing), usage with every chunk, the members to take out, and
    the tenant whose cache salt is put in (None: nobody's).
    """

    model: str | None
    force_usage: bool
    drop: tuple[str, ...] = ()
    salt_tenant: str | None = None


def rewrite_body(body: bytes, rewrite: Rewrite) -> bytes:
    """The body with `rewrite` done. The client's other stream options stay.

    Raises SpliceError when the body or its `stream_options` is not a JSON object, or the
    client's own salt is none.
    """
    members = _read(body)
    for name in rewrite.drop:
        members.pop(name, None)
    if rewrite.salt_tenant is not None:
        salt = cache_salt(rewrite.salt_tenant, _own_salt(members))
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
            raise SpliceError(f"`{_OPTIONS}` must be an object.", _OPTIONS) from error
    return msgspec.json.encode(members)


def cache_salt(tenant: str, own: str = "") -> str:
    """The salt of a tenant, and of the salt that its client has chosen within it.

    It needs no secret: no client can make vLLM read a salt that has not passed here, so that
    knowing another's is of no use.
    """
    return hashlib.sha256(f"headgate\0{tenant}\0{own}".encode()).hexdigest()


def _own_salt(members: Mapping[str, msgspec.Raw]) -> str:
    """What the client sent; "" for none or null."""
    sent = bytes(members.get(CACHE_SALT, b"null"))
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
    """The JSON object `body` with its top-level `members` (name to JSON text) put in.

    Of a name that comes twice the last value stays, as in Python's json and in vLLM; names are
    compared decoded, so an escaped one is the same name. Raises SpliceError for no JSON object.
    """
    ours = {name: msgspec.Raw(value) for name, value in members.items()}
    return msgspec.json.encode({**_read(body), **ours})


def _read(body: bytes) -> dict[str, msgspec.Raw]:
    """Every top-level member, the last of each name."""
    try:
        return _object.decode(body.removeprefix(_BOM))
    except RecursionError as error:
        raise SpliceError("The body is nested too deeply.") from error
    except ValueError as error:  # msgspec's errors, and a name that is not UTF-8
        raise SpliceError("The body must be a JSON object.") from error
