"""Splicing: the given members change, every other byte of a value stays."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.splice import SpliceError, cache_salt, rewrite_body, splice
from extproc.types import Rewrite

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.sampled_from(["model", "stream_options", "a", 'q"\\', "é\n😀"]) | texts
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=6)


@given(objects, st.dictionaries(names, values, max_size=3), st.booleans(), st.sampled_from([0, 2]))
@example({"model": "a", "b": {"model": "inner"}}, {"model": "c"}, True, 0)
def test_splicing_is_updating(
    body: dict[str, Any], members: dict[str, Any], ascii_only: bool, indent: int
) -> None:
    """The result is the body with the given members put in."""
    sent = json.dumps(body, ensure_ascii=ascii_only, indent=indent or None).encode()

    spliced = splice(sent, {name: json.dumps(value).encode() for name, value in members.items()})

    assert json.loads(spliced) == {**body, **members}


@given(objects, st.integers(0, 3))
def test_bytes_of_other_values_stay(body: dict[str, Any], spaces: int) -> None:
    """Odd spacing, escapes and number spellings below the top level come out as they went in."""
    raw = json.dumps(body, separators=("," + " " * spaces, ":\t"), ensure_ascii=True).encode()
    sent = b'{"kept":' + raw + b',"number":1.00E+2,"model":"x"}'

    spliced = splice(sent, {"model": b'"y"'})

    assert b'"kept":' + raw in spliced
    assert b"1.00E+2" in spliced
    assert b'"x"' not in spliced.replace(raw, b"")


fragments = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b'"model"',
        b'"a"',
        b"\\",
        b"\\u",
        b"1",
        b"null",
        b" ",
    ]
)


@given(st.lists(fragments | st.binary(max_size=3), max_size=12))
@example([b'{"a":"', b"\xff", b'"}'])
def test_any_bytes_are_spliced_or_refused(parts: list[bytes]) -> None:
    """The only error is SpliceError, and every result is a JSON object."""
    try:
        spliced = splice(b"".join(parts), {"model": b'"y"'})
    except SpliceError:
        return
    assert json.loads(spliced.decode(errors="replace"))["model"] == "y"


def test_every_occurrence_of_a_name_is_replaced() -> None:
    """Duplicates and escaped spellings are the same member; vLLM must see only one of them."""
    sent = b'{"model":"a","mo\\u0064el":"b","x":1,"\\u006dodel":"c"}'

    assert json.loads(splice(sent, {"model": b'"ours"'})) == {"model": "ours", "x": 1}
    assert splice(sent, {"model": b'"ours"'}).count(b"model") == 1


def test_a_nested_name_is_left_alone() -> None:
    """Only the top level changes."""
    sent = b'{"messages":[{"model":"inner"}],"model":"a"}'

    assert splice(sent, {"model": b'"b"'}) == b'{"messages":[{"model":"inner"}],"model":"b"}'


@pytest.mark.parametrize("sent", [b'\xef\xbb\xbf{"a":1}', b' \r\n\t{"a":1} \n'])
def test_a_byte_order_mark_and_blanks_around_the_object_do_not_matter(sent: bytes) -> None:
    """JSON parsers of clients write both."""
    assert splice(sent, {"model": b'"m"'}) == b'{"a":1,"model":"m"}'


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[1]", b'"text"', b"7", b"{", b'{"a":1}x', b'{"a":1,}', b'{"\xff":1}'],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """The error says that a JSON object is needed."""
    with pytest.raises(SpliceError, match="must be a JSON object"):
        splice(body, {})


@pytest.mark.parametrize("depth", [50_000, 5_000_000])
def test_deep_nesting_is_refused_and_harms_nobody(depth: int) -> None:
    """No stack overflows, whatever the depth."""
    body = b'{"a":' + b"[" * depth + b"]" * depth + b"}"

    with pytest.raises(SpliceError, match="nested too deeply"):
        splice(body, {})


@pytest.mark.parametrize(
    "value",
    [
        b'"' + b"x" * 10_000_000 + b'"',
        b'"' + rb"\n\"\\" * 1_600_000 + b'"',
        b"[" + b"[]," * 3_300_000 + b"0]",
        b"[" + b"12," * 3_300_000 + b"0]",
    ],
    ids=["one string", "escapes", "brackets", "token ids"],
)
def test_ten_megabytes_are_spliced_in_well_under_a_second(value: bytes) -> None:
    """Linear in the size, for every kind of content. It takes about 10 ms."""
    start_s = time.process_time()

    spliced = splice(b'{"prompt":' + value + b',"model":"a"}', {"model": b'"b"'})

    assert spliced == b'{"prompt":' + value + b',"model":"b"}'
    assert time.process_time() - start_s < 0.5


FORCED = {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, FORCED),
        ("null", FORCED),
        ("{}", FORCED),
        ('{"include_usage":false}', FORCED),
        ('{"stream_interval":4,"include_usage":true}', {"stream_interval": 4, **FORCED}),
    ],
)
def test_forcing_usage_keeps_the_clients_other_options(
    options: str | None, expected: dict[str, Any]
) -> None:
    """Both options are on, whatever the client sent; its other options stay."""
    member = "" if options is None else f', "stream_options": {options}'
    sent = f'{{"stream":true{member}}}'.encode()

    body = json.loads(rewrite_body(sent, Rewrite(None, force_usage=True)))

    assert body == {"stream": True, "stream_options": expected}


@pytest.mark.parametrize("options", [b"[]", b'"x"', b"1", b"true"])
def test_options_that_are_no_object_are_refused_by_name(options: bytes) -> None:
    """vLLM would refuse them too; replacing them would hide the client's mistake."""
    with pytest.raises(SpliceError) as raised:
        rewrite_body(b'{"stream_options":' + options + b"}", Rewrite(None, force_usage=True))

    assert raised.value.param == "stream_options"


def test_the_name_is_written_as_json() -> None:
    """A served name may have any characters."""
    body = rewrite_body(b'{"model":"a"}', Rewrite('org/"größe"', force_usage=False))

    assert json.loads(body) == {"model": 'org/"größe"'}


def test_members_of_the_platform_are_taken_out_however_they_are_spelled() -> None:
    """Every member of the name, but none below the top level."""
    sent = rb'{"priority":1,"a":{"priority":2},"pri\u006frity":3,"session_id":"s"}'

    body = rewrite_body(sent, Rewrite(None, force_usage=False, drop=("priority", "session_id")))

    assert json.loads(body) == {"a": {"priority": 2}}


def salted(tenant: str, sent: str) -> str:
    body = rewrite_body(sent.encode(), Rewrite(None, force_usage=False, salt_tenant=tenant))
    return str(json.loads(body)["cache_salt"])


def test_a_salt_belongs_to_one_tenant() -> None:
    """No client's salt gives another tenant's salt; equal salts of a tenant stay equal."""
    own = salted("acme", "{}")
    chosen = salted("acme", '{"cache_salt":"mine"}')

    assert own == salted("acme", '{"cache_salt":null}') == cache_salt("acme")
    assert chosen == salted("acme", '{"cache_salt":"x","cache_salt":"mine"}')
    theirs = {salted("rival", f'{{"cache_salt":"{text}"}}') for text in ("mine", own, chosen)}
    assert len({own, chosen, *theirs}) == 5
    assert not ({own, chosen} & theirs)
    assert 1 <= len(own) <= 1024


@pytest.mark.parametrize("salt", ['""', "7", "[]", "{}", "true", f'"{"x" * 1025}"'])
def test_a_salt_that_vllm_would_refuse_is_refused(salt: str) -> None:
    """Replacing it would hide the client's mistake."""
    with pytest.raises(SpliceError) as raised:
        salted("acme", f'{{"cache_salt":{salt}}}')

    assert raised.value.param == "cache_salt"
