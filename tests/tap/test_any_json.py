"""Invariants of the tap on generated events."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tap.counting import count
from tests.tap.rig import TapEnvoy

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNTS = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9999), "completion_tokens": st.integers(0, 9999)}
)
TEXTS = st.text(st.sampled_from('"\\{}[]:, ausge\n\ré'), max_size=8) | st.just("usage")
KEYS = st.sampled_from(["usage", "choices", "error", "index", "a", '"usage', 'a"', "\\", "role"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | TEXTS | COUNTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
ROOTS = st.dictionaries(KEYS.filter(lambda key: key not in ("usage", "choices")), VALUES)
LAYOUTS = st.sampled_from([(",", ":"), (", ", ": "), (",", " : ")])


@st.composite
def chunks(draw: st.DrawFn) -> dict[str, Any]:
    """One chunk: any members in any order, choices before, after or between them."""
    root = draw(ROOTS)
    root["choices"] = [{"index": draw(st.integers(0, 2)), "delta": draw(VALUES)}]
    if draw(st.booleans()):
        root["usage"] = draw(COUNTS)
    return {key: root[key] for key in draw(st.permutations(list(root)))}


@settings(max_examples=150)
@given(sent=st.lists(chunks(), min_size=1, max_size=3), layout=LAYOUTS)
async def test_usage_of_the_root_and_nothing_else_is_counted_and_cut(
    tap: TapEnvoy, sent: list[dict[str, Any]], layout: tuple[str, str]
) -> None:
    def stream(events: list[dict[str, Any]]) -> bytes:
        lines = (json.dumps(event, separators=layout, ensure_ascii=False) for event in events)
        return "".join(f"data: {line}\n\n" for line in lines).encode()

    headers = {"x-client-usage": "final", "x-api": "chat", "x-kind": "text/event-stream"}
    response = await tap.splitter.post("/", headers=headers, content=stream(sent))
    assert response.status_code == 200, response.text
    without_usage = [{k: v for k, v in event.items() if k != "usage"} for event in sent]
    assert response.content == stream(without_usage)
    running = {event["choices"][0]["index"]: event["usage"] for event in sent if "usage" in event}
    usage = dict(pair.split("=") for pair in response.headers["usage"].split(";"))
    expected = (
        str(sum(usage["completion_tokens"] for usage in running.values())) if running else None
    )
    assert usage.get("completion") == expected


@settings(max_examples=150)
@given(
    body=st.lists(
        st.sampled_from(
            [b'{"usage":{', b'"usage":', b'"prompt_tokens":3', b"}", b"]", b"[", b'"', b"\\", b"\n",
             b"\r", b"data:", b"event: ", b"message_start", b"response.completed", b"\x00", b"\xff",
             b'"duration":"2.5"', b'"duration":3,', b'"seconds":7',
             b'{"metrics":{"time_to_first_token_ms":52.25', b',"queue_time_ms":', b"7.", b".5,"]
        ),
        max_size=40,
    ).map(b"".join),
    kind=st.sampled_from(["text/event-stream", "application/json"]),
    api=st.sampled_from(
        ["chat", "completions", "responses", "messages", "embeddings", "models", "audio"]
    ),
    client_usage=st.sampled_from(["none", "continuous"]),
)  # fmt: skip
async def test_garbage_does_no_harm(
    tap: TapEnvoy, body: bytes, kind: str, api: str, client_usage: str
) -> None:
    """Every cut gives the same (splits.lua checks it). Without alterations all bytes stay."""
    headers = {"x-client-usage": client_usage, "x-api": api, "x-kind": kind}
    if api == "audio":
        headers |= {"x-api": "translations", "x-per-second": "50"}
    response = await tap.splitter.post("/", headers=headers, content=body)
    assert response.status_code == 200, response.text
    usage = dict(pair.split("=") for pair in response.headers["usage"].split(";"))
    assert (response.content, usage) == count(headers, [body])
    if client_usage == "continuous":
        assert response.content == body
