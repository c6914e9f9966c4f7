"""Changes top-level members of a JSON request body and copies every other value as it came.

Values are cut out and put back as raw bytes: nothing below the top level is decoded, so
that a prompt of 10 MB costs milliseconds, and what vLLM sees of it is what the client sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

_BOM = b"\xef\xbb\xbf"
_OPTIONS = "stream_options"
_USAGE_IN_EVERY_CHUNK = {"include_usage": b"true", "continuous_usage_stats": b"true"}

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class SpliceError(ValueError):
    """The body cannot be rewritten; the text tells the client why, `param` which field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What must change in a body: the model's name (None: nothing), usage with every chunk."""

    model: str | None
    force_usage: bool


def rewrite_body(body: bytes, rewrite: Rewrite) -> bytes:
    """The body with `rewrite` done. The client's other stream options stay.

    Raises SpliceError when the body or its `stream_options` is not a JSON object.
    """
    members = _read(body)
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
