"""Puts a model name and the usage fields into a form."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.form import rewrite_form
from extproc.splice import SpliceError
from extproc.types import FormRewrite, UsageFields
from headgate.simulator.audio import read_form

KIND = "multipart/form-data; boundary=b0"
HEAD = 'content-disposition: form-data; name="{}"\r\n\r\n'
INCLUDE, CONTINUOUS = "stream_include_usage", "stream_continuous_usage_stats"


def form(fields: list[tuple[str, str]]) -> tuple[bytes, dict[str, int]]:
    """A body, and the offset of each value."""
    body, places = "", {}
    for name, value in fields:
        body += "--b0\r\n" + HEAD.format(name)
        places[name] = len(body)
        body += value + "\r\n"
    return (body + "--b0--\r\n").encode(), places


def read(body: bytes) -> dict[str, object]:
    return dict(asyncio.run(read_form(KIND, body)).values)


@given(
    fields=st.permutations(
        [("model", "tiny"), ("stream", "true"), (INCLUDE, "False"), (CONTINUOUS, "0"), ("x", "y")]
    ),
    left_out=st.sets(st.sampled_from([INCLUDE, CONTINUOUS, "x"])),
    model=st.sampled_from([b"tiny", b"t", b"org/a-longer-name"]),
)
def test_a_form_asks_for_all_usage_afterwards_and_says_the_rest_as_before(
    fields: list[tuple[str, str]], left_out: set[str], model: bytes
) -> None:
    kept = [(name, value) for name, value in fields if name not in left_out]
    body, places = form(kept)
    usage = UsageFields(places.get(INCLUDE), places.get(CONTINUOUS))
    rewritten = rewrite_form(body, FormRewrite(places["model"], b"tiny", model, usage))

    asked = {"model": model.decode(), INCLUDE: "true", CONTINUOUS: "true"}
    assert read(rewritten) == {**dict(kept), **asked}


def test_without_usage_only_the_name_changes() -> None:
    body, places = form([("x", "tiny"), ("model", "tiny"), (INCLUDE, "false")])
    at = places["model"]

    rewritten = rewrite_form(body, FormRewrite(at, b"tiny", b"other"))
    assert rewritten == body[:at] + b"other" + body[at + 4 :]


@pytest.mark.parametrize("model", [b"a\r\n--b0\r\n", b"--b0", b"a\r"])
def test_a_name_never_opens_a_part(model: bytes) -> None:
    body, places = form([("model", "tiny")])

    with pytest.raises(SpliceError):
        rewrite_form(body, FormRewrite(places["model"], b"tiny", model))


@pytest.mark.parametrize("body", [b"", b"\r\n", b"{}", b"--b0\r\n" + b"x" * 200, b"tiny"])
@pytest.mark.parametrize("usage", [None, UsageFields(3, None), UsageFields(10_000, 1)])
def test_a_body_that_was_not_read_so_is_refused(body: bytes, usage: UsageFields | None) -> None:
    with pytest.raises(SpliceError):
        rewrite_form(body, FormRewrite(50, b"tiny", b"x", usage))
