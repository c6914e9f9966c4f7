"""A string is checked in words of several bytes, and none of its bytes is passed unseen."""

import json

import pytest

from tests.door.rig import pass_through
from tests.envoy_process import CHAT, Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD = {
    "an escape": b"\\n",
    "an escaped quote": b'\\"',
    "the last plain byte": b"\x7f",
    "two bytes": "é".encode(),
    "three bytes": "你".encode(),
    "four bytes": "😀".encode(),
    "a control byte": b"\x1f",
    "an unknown escape": b"\\x",
    "a character that is cut": b"\xc3",
    "a surrogate in UTF-8": b"\xed\xa0\x80",
    "a byte that begins no character": b"\xff",
}


def is_json(body: bytes) -> bool:
    try:
        json.loads(body.decode())
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_an_odd_byte_is_seen_at_every_place_of_a_word(rig: Rig, odd: bytes) -> None:
    for before in range(13):
        text = b"x" * before + odd + b"y" * 19
        body = b'{"model":"tiny","messages":[{"role":"user","content":"%b"}]}' % text
        passage = await pass_through(rig, CHAT, "application/json", body)

        assert passage.status == (200 if is_json(body) else 400), (before, odd)
