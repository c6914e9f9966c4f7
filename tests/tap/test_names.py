"""Answers and errors have the model's name in the policy, also where vLLM has another."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.counting.names import MAX_ERROR_BYTES
from headgate.core.contract import Counting
from tests.tap.counting import count, cut_everywhere, single_bytes
from tests.tap.rig import Script, TapEnvoy
from tests.tap.streams import NAMES

by_both = pytest.mark.parametrize("counting", Counting)
JSON = {"content-type": "application/json"}
UNTOUCHED = {"x-client-usage": "untouched", **NAMES}
LONG = "x" * 3000 + '\\"model":"org/served"' * 3

BODIES = {
    "chat": {"id": "c", "model": "org/served", "choices": [{"message": {"content": LONG}}]},
    "messages": {"content": [{"text": LONG, "model": "org/served"}], "model": "org/served"},
    "responses": {
        "instructions": LONG,
        "metadata": {"model": "org/served"},
        "object": "model",
        "model": "org/served",
    },
    "embeddings": {"model": "org/served", "data": [{"embedding": [0.5] * 500}]},
    "rerank": {"model": None, "results": [{"document": {"text": "org/served"}}]},
}


def renamed(answer: dict[str, object]) -> dict[str, object]:
    """The answer with the client's name in its root, and nowhere else."""
    return answer | ({"model": "alias"} if answer["model"] is not None else {})


@pytest.mark.asyncio(loop_scope="session")
@by_both
@pytest.mark.parametrize("has_length", [False, True])
@pytest.mark.parametrize("api", BODIES)
async def test_a_whole_answer_has_the_name_that_the_client_knows(
    tap: TapEnvoy, counting: Counting, api: str, has_length: bool
) -> None:
    body = json.dumps(BODIES[api]).encode()
    headers = JSON | ({"content-length": str(len(body))} if has_length else {})
    script = Script([body[:50], body[50:]], headers)
    response, seen, usage = await tap.answer(script, {"x-api": api, **UNTOUCHED}, counting)
    assert json.loads(seen) == renamed(BODIES[api])
    assert "content-length" not in response.headers
    assert usage["complete"] == "1"


@pytest.mark.asyncio(loop_scope="session")
@by_both
@pytest.mark.parametrize(
    ("message", "seen"),
    [
        (
            "The model `org/served` does not exist. Valid aliases: other, org/b.",
            "The model `alias` does not exist.",
        ),
        ("'org/served' or \"org/served\" has no lora", "'alias' or \"alias\" has no lora"),
        ("This model is not org/served-2.", "This model is not org/served-2."),
    ],
)
async def test_an_error_has_the_name_that_the_client_knows(
    tap: TapEnvoy, counting: Counting, message: str, seen: str
) -> None:
    error = {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}
    text = json.dumps(error).encode()
    for pieces in ([text], [text[:40], text[40:]]):
        headers = JSON | {"content-length": str(len(text))}
        answer = await tap.answer(
            Script(pieces, headers, 404), {"x-api": "chat", **UNTOUCHED}, counting
        )
        assert json.loads(answer[1]) == {"error": error["error"] | {"message": seen}}
        assert answer[2] == {"status": "404", "events": "0", "complete": "1"}


@pytest.mark.asyncio(loop_scope="session")
async def test_streamed_audio_at_a_flat_price_has_the_name(tap: TapEnvoy) -> None:
    event = b'data: {"object":"transcription.chunk","model":"org/served","choices":[]}\n\n'
    admission = {"x-api": "transcriptions", **UNTOUCHED}
    _, seen, usage = await tap.answer(Script([event[:30], event[30:]]), admission)
    assert seen == event.replace(b"org/served", b"alias")
    assert usage == {"status": "200", "events": "0", "complete": "1"}
    by_ext_proc = count(admission | {"x-kind": "text/event-stream"}, [event[:30], event[30:]])
    assert by_ext_proc == (seen, usage)


WORDS = st.sampled_from(
    [b'{"model":', b'"model":', b'"model"', b'"org/served"', b'\\"model"', b" ", b",", b"{", b"}",
     b"[", b"]", b'"', b"\\", b'"a":1', b'"%b"' % (b"z" * 40), b'"content":"', b"`org/served`"]
)  # fmt: skip


@pytest.mark.asyncio(loop_scope="session")
@settings(max_examples=150)
@given(
    body=st.lists(WORDS, max_size=20).map(b"".join),
    status=st.sampled_from(["200", "404"]),
    kind=st.sampled_from(["application/json", "text/event-stream"]),
)
async def test_garbage_is_the_same_however_it_is_cut(
    tap: TapEnvoy, body: bytes, status: str, kind: str
) -> None:
    headers = {"x-api": "chat", "x-kind": kind, "x-status": status, **UNTOUCHED}
    seen = count(headers, [body])
    for pieces in (single_bytes(body), *cut_everywhere(body)):
        assert count(headers, pieces) == seen
    response = await tap.splitter.post("/", headers=headers, content=body)
    assert response.status_code == 200, response.text
    usage = dict(pair.split("=") for pair in response.headers["usage"].split(";"))
    assert (response.content, usage) == seen


def test_an_error_that_is_too_long_passes_unread() -> None:
    body = b'{"error":"`org/served` %b"}' % (b"x" * MAX_ERROR_BYTES)
    headers = {"x-api": "chat", "x-kind": "application/json", "x-status": "400", **UNTOUCHED}
    assert count(headers, [body[:-9], body[-9:]])[0] == body
