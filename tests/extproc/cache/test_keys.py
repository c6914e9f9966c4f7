"""The keys of answers: two different requests never share one, and two tenants never do."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extproc.cache.keys import (
    OddBodyError,
    answer_key,
    is_deterministic,
    read_body,
    tenant_key,
)
from extproc.types import Caching
from headgate.core.apis import Api
from headgate.core.contract import AdmissionKey

SECRET = b"0123456789abcdef" * 2
CACHING = Caching(
    path="/v1/chat/completions",
    api=Api.CHAT,
    tenant="acme",
    ttl_s=600,
    max_bytes=1000,
    tenant_max_bytes=10_000,
    max_age_s=None,
)
ADMISSION = {AdmissionKey.MODEL: "tiny", AdmissionKey.BASE: "tiny"}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


def key_of(
    body: bytes, tenant: str = "acme", secret: bytes = SECRET, **admission: str | None
) -> str:
    changed = {**ADMISSION, **{AdmissionKey(name): text for name, text in admission.items()}}
    own = tenant_key(secret, tenant)
    return answer_key(own, CACHING, changed, read_body(body))  # type: ignore[arg-type]


def shuffled(value: Any, order: int) -> Any:
    """The same value with the members of each object in another order."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: hash((order, name)))
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(one, order) for one in value] if isinstance(value, list) else value


@given(BODIES, st.integers())
def test_the_order_of_members_and_the_way_of_writing_make_no_difference(
    body: dict[str, Any], order: int
) -> None:
    one = json.dumps(body).encode()
    other = json.dumps(shuffled(body, order), ensure_ascii=False, indent=1)
    assume("\\ud" not in one.decode())  # half of a pair is no UTF-8

    assert key_of(one) == key_of(other.encode())


@given(BODIES, BODIES)
def test_two_different_bodies_never_share_a_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    texts = [json.dumps(body, sort_keys=True) for body in (one, other)]
    assume(texts[0] != texts[1])

    assert key_of(texts[0].encode()) != key_of(texts[1].encode())


@given(BODIES, st.text(max_size=6), VALUES, VALUES)
def test_one_other_member_makes_another_key(
    body: dict[str, Any], name: str, value: Any, other: Any
) -> None:
    assume(json.dumps(value, sort_keys=True) != json.dumps(other, sort_keys=True))
    one, two = ({**body, name: each} for each in (value, other))

    assert key_of(json.dumps(one).encode()) != key_of(json.dumps(two).encode())


NAMES = st.text(st.characters(codec="ascii"), max_size=6)


@given(BODIES, NAMES, NAMES)
def test_two_tenants_never_share_a_key(body: dict[str, Any], one: str, other: str) -> None:
    assume(one != other)
    text = json.dumps(body).encode()

    assert key_of(text, one) != key_of(text, other)


@given(st.lists(NAMES | st.none(), min_size=5, max_size=5), st.data())
def test_another_model_base_adapter_or_version_makes_another_key(
    names: list[str | None], data: st.DataObject
) -> None:
    """However the names are cut: `ab` and `c` are not `a` and `bc`."""
    other = data.draw(st.lists(NAMES | st.none(), min_size=5, max_size=5))
    assume(other != names)
    parts = ("model", "base", "served_as", "adapter", "version")

    assert key_of(b"{}", **dict(zip(parts, names, strict=True))) != key_of(
        b"{}", **dict(zip(parts, other, strict=True))
    )


def test_a_new_secret_finds_nothing() -> None:
    assert key_of(b"{}") != key_of(b"{}", secret=SECRET[::-1])


@pytest.mark.parametrize(
    "body",
    [
        b'{"seed": 1, "seed": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": 1, "\\u0061": 1}',
        b'{"seed": 18446744073709551616}',
        b'{"seed": -18446744073709551616}',
        b'{"temperature": NaN}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 1e400}',
        b"[]",
        b"{",
        b"\xff",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(12),
)
def test_a_body_that_can_be_understood_in_two_ways_is_not_looked_up(body: bytes) -> None:
    with pytest.raises(OddBodyError):
        read_body(body)


def test_large_seeds_are_exact() -> None:
    """As floats both would be 18446744073709551616."""
    seeds = (2**64 - 1, 2**64 - 2)
    one, other = (key_of(json.dumps({"seed": seed}).encode()) for seed in seeds)

    assert one != other


@pytest.mark.parametrize(
    ("api", "body", "expected"),
    [
        (Api.CHAT, {"temperature": 0}, True),
        (Api.CHAT, {"temperature": 0.0, "n": 1}, True),
        (Api.CHAT, {"temperature": 0.7, "seed": 0}, True),
        (Api.CHAT, {"seed": 7}, True),
        (Api.CHAT, {}, False),
        (Api.CHAT, {"temperature": 0.7}, False),
        (Api.CHAT, {"temperature": False}, False),
        (Api.CHAT, {"temperature": "0"}, False),
        (Api.CHAT, {"seed": "7"}, False),
        (Api.CHAT, {"seed": True}, False),
        (Api.CHAT, {"seed": None, "temperature": None}, False),
        (Api.CHAT, {"temperature": 0, "n": 2}, False),
        (Api.CHAT, {"temperature": 0, "n": None}, True),
        (Api.COMPLETIONS, {"temperature": 0, "best_of": 3}, False),
        (Api.MESSAGES, {"temperature": 0}, True),
        (Api.MESSAGES, {"seed": 7}, False),
        (Api.EMBEDDINGS, {}, True),
    ],
)
def test_only_a_deterministic_request_is_looked_up(
    api: Api, body: dict[str, object], expected: bool
) -> None:
    assert is_deterministic(api, body) is expected
