"""Puts another model's name and the fields for usage into a multipart form, and leaves every other
byte as it came.

The proxy reads the form itself (`headgate/dataplane/form_reader.lua`) and reports the offsets of
the values. There is no second reader here that could find others.
"""

from dataclasses import dataclass

from extproc.splice import SpliceError

_LINE_END = b"\r\n"


@dataclass(frozen=True, slots=True)
class UsageFields:
    """Where the values of `stream_include_usage` and `stream_continuous_usage_stats` begin, in
    bytes from 0; None for a field that is not there."""

    include: int | None
    continuous: int | None


@dataclass(frozen=True, slots=True)
class FormRewrite:
    """What must change in a form.

    The model's name: where it begins (bytes from 0), what stands there, what is to. `usage`: the
    fields that are to ask for usage with every chunk, None for a form that asks as it does.
    """

    at: int
    sent: bytes
    model: bytes
    usage: UsageFields | None = None


def rewrite_form(body: bytes, rewrite: FormRewrite) -> bytes:
    """The form with `rewrite` done. Raises SpliceError where a value does not stand."""
    model_end = rewrite.at + len(rewrite.sent)
    border = body[: body.find(_LINE_END)]
    if body[rewrite.at : model_end] != rewrite.sent or not border.startswith(b"--"):
        raise SpliceError("The form does not hold its model where it was read.", "model")
    if border in rewrite.model or b"\r" in rewrite.model:
        raise SpliceError("The boundary of the form stands in the name of its model.", "model")
    edits = [(rewrite.at, model_end, rewrite.model)]
    if rewrite.usage is not None:
        places = {
            b"stream_include_usage": rewrite.usage.include,
            b"stream_continuous_usage_stats": rewrite.usage.continuous,
        }
        absent = [name for name, at in places.items() if at is None]
        edits[0] = (rewrite.at, model_end, rewrite.model + _parts(absent, border))
        for at in places.values():
            if at is not None:
                edits.append((at, _value_end(body, at), b"true"))
    return _edited(body, sorted(edits))


def _parts(names: list[bytes], border: bytes) -> bytes:
    """What follows a value so that these fields are true."""
    parts = [
        _LINE_END + border + _LINE_END
        + b'Content-Disposition: form-data; name="' + name + b'"' + _LINE_END * 2 + b"true"
        for name in names
    ]  # fmt: skip
    return b"".join(parts)


def _value_end(body: bytes, at: int) -> int:
    """Where a word ends, which has no line end in it."""
    end = body.find(_LINE_END, at)
    if not 0 <= end - at <= 8:
        raise SpliceError("The form does not hold its fields where they were read.")
    return end


def _edited(body: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    view, at = memoryview(body), 0
    pieces: list[bytes | memoryview] = []
    for first, end, put in edits:
        pieces += [view[at:first], put]
        at = end
    return b"".join([*pieces, view[at:]])
