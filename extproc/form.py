"""Puts another model name and the usage fields into a multipart form; other bytes stay unchanged.

The proxy reads the form itself (`headgate/dataplane/form_reader.lua`) and reports the offsets of
the values. A second reader here could find other offsets, so there is none.
"""

from collections.abc import Callable

from extproc.splice import SpliceError
from extproc.types import FormRewrite

_LINE_END = b"\r\n"


def rewrite_form(body: bytes, rewrite: FormRewrite) -> bytes:
    """The form with `rewrite` done. Raises SpliceError if a value is not at its offset."""
    model_end = rewrite.at + len(rewrite.sent)
    border = body[: body.find(_LINE_END)]
    if body[rewrite.at : model_end] != rewrite.sent or not border.startswith(b"--"):
        raise SpliceError("The model is not at the offset where the form was read.", "model")
    return _edited(body, form_edits(rewrite, border, lambda at: _value_end(body, at)))


def form_edits(
    rewrite: FormRewrite, border: bytes, end_of: Callable[[int], int]
) -> list[tuple[int, int, bytes]]:
    """The changes in their order: where each begins and ends, and what to put there.

    `border` begins each part, and `end_of` tells where the value that begins at an offset ends.
    Raises SpliceError for a model's name that would end its part.
    """
    model_end = rewrite.at + len(rewrite.sent)
    if border in rewrite.model or b"\r" in rewrite.model:
        raise SpliceError("The model's name contains the boundary of the form.", "model")
    edits = [(rewrite.at, model_end, rewrite.model)]
    if rewrite.usage is not None:
        offsets = {
            b"stream_include_usage": rewrite.usage.include,
            b"stream_continuous_usage_stats": rewrite.usage.continuous,
        }
        absent = [name for name, at in offsets.items() if at is None]
        edits[0] = (rewrite.at, model_end, rewrite.model + _parts(absent, border))
        edits += [(at, end_of(at), b"true") for at in offsets.values() if at is not None]
    return sorted(edits)


def _parts(names: list[bytes], border: bytes) -> bytes:
    """The parts to put behind a value, which set these fields to true."""
    parts = [
        _LINE_END + border + _LINE_END
        + b'Content-Disposition: form-data; name="' + name + b'"' + _LINE_END * 2 + b"true"
        for name in names
    ]  # fmt: skip
    return b"".join(parts)


def _value_end(body: bytes, at: int) -> int:
    """Where the word at `at` ends; it has no line end in it."""
    end = body.find(_LINE_END, at)
    if not 0 <= end - at <= 8:
        raise SpliceError("A field is not at the offset where the form was read.")
    return end


def _edited(body: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    view, at = memoryview(body), 0
    pieces: list[bytes | memoryview] = []
    for first, end, put in edits:
        pieces += [view[at:first], put]
        at = end
    return b"".join([*pieces, view[at:]])
