"""Generated requests: the relevant members in every spelling, type, order and number."""

import json

from hypothesis import strategies as st

from tests.door.rig import BODIES

NAMES = (
    "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "prompt", "messages", "background", "prompt_embeds", "prompt_cache_key",
    "cache_salt", "priority", "request_id", "session_id", "kv_transfer_params", "vllm_xargs",
    "user", "include_usage", "",
)  # fmt: skip
TEXTS = (
    "tiny", "shy", "alias", "poet", "Tiny", "nobody", "lora-poet", "", "3", " 3 ", "3_0", "+3",
    "0", "true", "t", "1", "é", "😀", 'a"b', "a\\", "]}", " " * 9000 + "3", "0" * 9000 + "3",
)  # fmt: skip
NUMBERS = (
    "0", "1", "2", "3", "8192", "8193", "-1", "-0", "3.0", "1.5", "1e1", "1E+2", "0.3e1", "1e400",
    "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551617",
    "1e300",
)  # fmt: skip
WORDS = ("true", "false", "null")
NO_JSON = ("03", "+3", "NaN", "-Infinity", "True", "None", "'x'", "")
NESTED = (
    "[]", "{}", "[3]", '["a"]', '["a", "b]"]', "[[1], [2, 3]]", "[1, 2]", '{"model": "nobody"}',
    '{"include_usage": true}', '{"include_usage": true, "continuous_usage_stats": true}',
    '{"include_usage": "true"}', '{"a": {"n": 7}}', '[{"role": "user", "content": "n\\": 5"}]',
    '[[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]',
)  # fmt: skip

spaces = st.sampled_from(["", "", " ", "\t", "\n ", "\r\n"])
odd_spaces = st.sampled_from(["\v", "\f", "\0", "\u00a0", "/**/", "﻿"])


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """The text as a JSON string: plain, or with some of its characters escaped."""
    if draw(st.integers(0, 4)):
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    escape = draw(st.sampled_from(["\\u{:04x}", "\\u{:04X}"]))
    letters = (
        escape.format(ord(letter))
        if ord(letter) < 0x10000 and draw(st.booleans())
        else json.dumps(letter)[1:-1]
        for letter in text[:20]
    )
    return '"' + "".join(letters) + '"' if len(text) <= 20 else json.dumps(text)


@st.composite
def keys(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(NAMES))
    change = draw(st.integers(0, 19))
    if change == 0:
        name = name.upper()
    elif change == 1:
        name += draw(st.sampled_from([" ", "\0", ".", "s"]))
    elif change == 2:
        name = name.replace("o", "ο").replace("n", "\uff4e")  # letters of other scripts
    return draw(spelled(name))


kinds = [st.sampled_from(choice) for choice in (NUMBERS[:6], NUMBERS, WORDS, NESTED)]
kinds.append(st.sampled_from(TEXTS).flatmap(spelled))
json_values = st.one_of(*kinds, *kinds, *kinds, *kinds, st.sampled_from(NO_JSON))


@st.composite
def texts(draw: st.DrawFn, path: str) -> str:
    """An object: the small request's members with others before, between and after them."""
    members = [json.dumps(name) + ":" + json.dumps(value) for name, value in BODIES[path].items()]
    for key, value in draw(st.lists(st.tuples(keys(), json_values), max_size=5)):
        gap, other = draw(spaces), draw(spaces)
        members.insert(draw(st.integers(0, len(members))), f"{key}{gap}:{other}{value}")
    gap = draw(spaces)
    return gap + "{" + gap + f"{gap},".join(members) + gap + "}" + draw(spaces)


@st.composite
def broken(draw: st.DrawFn, body: bytes) -> bytes:
    """The bytes as a careless or malicious client would send them."""
    place = draw(st.integers(0, len(body)))
    ways = [
        body[:place] + draw(odd_spaces).encode() + body[place:],
        body[:place],
        body + draw(st.binary(min_size=1, max_size=4)),
        body[:place] + draw(st.binary(min_size=1, max_size=2)) + body[place + 1 :],
        body.decode().encode(draw(st.sampled_from(["utf-16", "utf-16-be", "utf-32"]))),
        b"\xef\xbb\xbf" + body,
    ]
    return draw(st.sampled_from(ways)) if draw(st.integers(0, 4)) == 0 else body


@st.composite
def whole_requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    path = draw(st.sampled_from(sorted(BODIES)))
    kind = draw(
        st.sampled_from(
            ["application/json"] * 8 + ["application/json; charset=utf-16", "text/json"]
        )
    )
    text = draw(texts(path))
    return path, kind, draw(broken(text.encode()))


requests = whole_requests()
"""Path, content type and body."""
