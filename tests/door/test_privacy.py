"""No byte of a prompt leaves the proxy for the services, unless its body must be rewritten."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from headgate._gen.ext_proc_pb2 import ProcessingRequest
from headgate.dataplane.box import BODY_LIMIT_BYTES
from tests.door.rig import BODIES, Decider
from tests.envoy_process import CHAT, Rig
from tests.fake_hooks import deny, too_many
from tests.fake_upstream import Received, reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "canary-5f1d0c"
STREAMING = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


def secretive(path: str, **more: object) -> bytes:
    """A request with the secret in its prompt, and in every other text."""
    body = json.loads(json.dumps(BODIES[path]).replace('"Hi"', f'"{SECRET}"'))
    for name in ("text_1", "query"):
        if name in body:
            body[name] = SECRET
    return json.dumps({**body, "metadata": {"note": SECRET}, "user": SECRET, **more}).encode()


def messages_to_services(rig: Rig) -> Iterator[bytes]:
    """Every message that the services have received."""
    services = rig.services
    for received in (services.checks, services.limits, services.logs, *services.streams):
        for message in received:
            yield message.SerializeToString()


async def finished(rig: Rig) -> None:
    """Waits for the access log, which comes last."""
    await rig.services.until(lambda: len(rig.services.logs) == 1)


async def send(rig: Rig, body: bytes, path: str = CHAT, **headers: str) -> int:
    await rig.reset()
    rig.services.process = Decider().process
    answer = await rig.post(body, path, **headers)
    await finished(rig)
    return answer.status_code


def keeps_secret(rig: Rig) -> bool:
    log = rig.box.log_file.read_bytes()
    return not any(SECRET.encode() in text for text in (*messages_to_services(rig), log))


@pytest.mark.parametrize("path", BODIES)
async def test_no_prompt_reaches_the_services(rig: Rig, path: str) -> None:
    assert await send(rig, secretive(path), path) == 200
    assert SECRET.encode() in rig.upstream.received[0].body
    assert keeps_secret(rig)


@pytest.mark.parametrize("path", STREAMING)
async def test_no_prompt_of_a_stream_reaches_them(rig: Rig, path: str) -> None:
    assert await send(rig, secretive(path, stream=True), path) == 200
    assert keeps_secret(rig)


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (400, b'{"model": "tiny", "prompt": "' + SECRET.encode(), "application/json"),
        (400, SECRET.encode(), "application/json"),
        (400, secretive(CHAT), "text/plain"),
        (400, secretive(CHAT, n=[SECRET]), "application/json"),
        (400, secretive(CHAT, n=" " * 9000 + SECRET), "application/json"),
        (404, secretive(CHAT, model="nobody"), "application/json"),
        (413, secretive(CHAT, filler="x" * BODY_LIMIT_BYTES), "application/json"),
    ],
    ids=["cut off", "no JSON", "text", "a list", "hidden", "unknown model", "too large"],
)
async def test_no_prompt_of_a_refused_request_reaches_them(
    rig: Rig, status: int, body: bytes, content_type: str
) -> None:
    if content_type == "application/json" and b'"n": [' in body:
        status = 200  # a list looks absent; vLLM refuses it
    assert await send(rig, body, **{"content-type": content_type}) == status
    assert keeps_secret(rig)


async def test_no_prompt_of_an_unknown_caller_reaches_them(rig: Rig) -> None:
    await rig.reset()
    rig.services.check = deny(401, "{}")
    assert (await rig.post(secretive(CHAT))).status_code == 401
    await finished(rig)
    assert keeps_secret(rig)


async def test_no_prompt_above_a_limit_reaches_them(rig: Rig) -> None:
    await rig.reset()
    rig.services.process, rig.services.limit = Decider().process, too_many
    assert (await rig.post(secretive(CHAT))).status_code == 429
    await finished(rig)
    assert keeps_secret(rig)


async def test_no_prompt_and_no_answer_of_an_aborted_stream_reaches_them(rig: Rig) -> None:
    async def never_ends(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        event = f'data: {{"choices": [{{"delta": {{"content": "{SECRET}"}}}}]}}\n\n'.encode()
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
        await asyncio.sleep(3600)

    await rig.reset()
    rig.services.process, rig.upstream.answer = Decider().process, never_ends
    headers = {"content-type": "application/json"}
    body = secretive(CHAT, stream=True)
    async with rig.client.stream("POST", CHAT, content=body, headers=headers) as answer:
        assert SECRET in await anext(answer.aiter_text())
    await finished(rig)
    assert keeps_secret(rig)


async def test_no_word_of_an_answer_reaches_them(rig: Rig) -> None:
    await rig.reset()
    rig.services.process = Decider().process
    rig.upstream.answer = reply(200, json.dumps({"choices": [{"text": SECRET}]}).encode())
    assert SECRET in (await rig.post()).text
    await finished(rig)
    assert keeps_secret(rig)


@pytest.mark.parametrize(
    "more",
    [
        {"model": "alias"},
        {"model": "shy", "stream": True},
        {"priority": 1},
        {"cache_salt": "mine"},
    ],
    ids=["another name", "usage", "a platform's field", "a salt"],
)
async def test_a_body_that_must_be_rewritten_is_sent_once_and_told_to_nobody_else(
    rig: Rig, more: dict[str, Any]
) -> None:
    """The exceptions, in docs/security.md."""
    assert await send(rig, secretive(CHAT, **more)) == 200
    holding = [text for text in messages_to_services(rig) if SECRET.encode() in text]
    assert [ProcessingRequest.FromString(text).WhichOneof("request") for text in holding] == [
        "request_body"
    ]


async def test_what_is_told_on_purpose(rig: Rig) -> None:
    """The client's model, its cache key, its user agent and its path."""
    await send(
        rig, b'{"model": "m-1", "prompt_cache_key": "k-1", "n": "n-1"}', **{"user-agent": "a-1"}
    )
    everything = b"".join(messages_to_services(rig))
    assert all(text in everything for text in (b"m-1", b"k-1", b"n-1", b"a-1"))


def recording(model: str = "tiny", **more: str) -> tuple[str, bytes]:
    """A form with the secret in its file, its file's name and its other fields."""
    parts = [
        f'--b0\r\nContent-Disposition: form-data; name="file"; filename="{SECRET}.wav"\r\n'
        f"Content-Type: audio/wav\r\n\r\nRIFF{SECRET}\r\n"
    ]
    fields = {"model": model, "prompt": SECRET, "hotwords": SECRET, SECRET: SECRET, **more}
    parts += [
        f'--b0\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return "multipart/form-data; boundary=b0", ("".join(parts) + "--b0--\r\n").encode()


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
@pytest.mark.parametrize("stream", ["false", "true"])
async def test_no_recording_reaches_them(rig: Rig, path: str, stream: str) -> None:
    """`tiny` forces usage, so its streams need no rewritten form either."""
    kind, body = recording(stream=stream)
    assert await send(rig, body, path, **{"content-type": kind}) == 200
    assert rig.upstream.received[0].body == body
    assert keeps_secret(rig)


@pytest.mark.parametrize(
    ("status", "more"),
    [(404, {"model": "nobody"}), (400, {"n": "2"}), (400, {"stream": SECRET})],
    ids=["unknown model", "a field that is not served", "no word"],
)
async def test_no_recording_of_a_refused_request_reaches_them(
    rig: Rig, status: int, more: dict[str, str]
) -> None:
    kind, body = recording(**more)
    path = "/v1/audio/transcriptions"
    assert await send(rig, body, path, **{"content-type": kind}) == status
    assert keeps_secret(rig)


@pytest.mark.parametrize("more", [{"model": "alias"}, {"model": "shy", "stream": "1"}])
async def test_a_recording_whose_form_must_be_rewritten_is_sent_once_and_told_to_nobody_else(
    rig: Rig, more: dict[str, str]
) -> None:
    """The exceptions, in docs/security.md."""
    kind, body = recording(**more)
    assert await send(rig, body, "/v1/audio/transcriptions", **{"content-type": kind}) == 200
    assert SECRET.encode() in rig.upstream.received[0].body
    holding = [text for text in messages_to_services(rig) if SECRET.encode() in text]
    assert [ProcessingRequest.FromString(text).WhichOneof("request") for text in holding] == [
        "request_body"
    ]
