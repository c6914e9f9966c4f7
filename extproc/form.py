"""Puts another model's name into a multipart form and leaves every other byte as it came.

The form itself is read in the proxy (`dataplane/form_reader.lua`), which says where the name
stands. There is no second reader here that could find another one.
"""

from dataclasses import dataclass

from extproc.splice import SpliceError


@dataclass(frozen=True, slots=True)
class FormRewrite:
    """The model's name in a form: where it begins (bytes from 0), what stands there, what is to."""

    at: int
    sent: bytes
    model: bytes


def rewrite_form(body: bytes, rewrite: FormRewrite) -> bytes:
    """The form with the other name in it. Raises SpliceError where the name does not stand."""
    end = rewrite.at + len(rewrite.sent)
    if body[rewrite.at : end] != rewrite.sent:
        raise SpliceError("The form does not hold its model where it was read.", "model")
    return body[: rewrite.at] + rewrite.model + body[end:]
