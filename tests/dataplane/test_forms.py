"""The fields of a form for ext_proc, on the real Envoy: those that vLLM's parser reads, or none."""

import asyncio
import random
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headgate.core.contract import Namespace
from headgate.simulator.audio import read_form
from headgate.simulator.vllm_errors import VllmError
from tests.envoy_process import Rig
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/audio/transcriptions"
KIND = "multipart/form-data; boundary=b0"
AUDIO = 'content-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav'
UNREAD = {"body": "unreadable", "fault": "form"}


def part(head: str, value: str) -> str:
    return f"--b0\r\n{head}\r\n\r\n{value}\r\n"


def field(name: str, value: str) -> str:
    return part(f'content-disposition: form-data; name="{name}"', value)


FILE = part(AUDIO, "RIFF\r\n--b\r\n\0\r\n\r\n")
MODEL = field("model", "tiny")
END = "--b0--\r\n"


def read(model_at: int, model: str = "tiny", **more: Any) -> dict[str, Any]:
    return {"body": "form", "model": model, "model_at": model_at, **more}


PLACE = len(MODEL) - len("tiny\r\n")
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "model, then file": (KIND, MODEL + FILE + END, read(PLACE)),
    "file, then model": (KIND, FILE + MODEL + END, read(len(FILE) + PLACE)),
    "no line end at the very end": (KIND, MODEL + FILE + END[:-2], read(PLACE)),
    "headers of other case": (
        KIND,
        part('Content-Disposition: form-data; name="model"', "tiny") + END,
        read(PLACE),
    ),
    "the type's case": ("Multipart/Form-Data;boundary=b0", MODEL + END, read(PLACE)),
    "a stream": (KIND, MODEL + field("stream", "True") + END, read(PLACE, stream=True)),
    "no stream": (KIND, MODEL + field("stream", "no") + END, read(PLACE, stream=False)),
    "usage, and where it is asked for": (
        KIND,
        MODEL + field("stream_include_usage", "FALSE") + END,
        read(PLACE, include_usage=False, include_usage_at=len(MODEL) + PLACE + 15),
    ),
    "a stream twice": (KIND, MODEL + field("stream", "true") * 2 + END, UNREAD),
    "a stream that is no word": (KIND, MODEL + field("stream", " true") + END, UNREAD),
    "an empty stream": (KIND, MODEL + field("stream", "") + END, UNREAD),
    "a stream as a file": (
        KIND,
        MODEL + part('content-disposition: form-data; name="stream"; filename="s"', "true") + END,
        UNREAD,
    ),
    "an empty field": (KIND, MODEL + field("prompt", "") + END, read(PLACE)),
    "a model with a slash": (
        KIND,
        field("model", "org/tiny v2") + END,
        read(PLACE, model="org/tiny v2"),
    ),
    "fields that are not served": (
        KIND,
        MODEL + field("n", "9") + field("vllm_xargs", "{}") + END,
        read(PLACE, platform="n,vllm_xargs"),
    ),
    "no model": (KIND, FILE + END, {"body": "form"}),
    "the model twice": (KIND, MODEL + MODEL + END, UNREAD),
    "the model as a file": (
        KIND,
        part('content-disposition: form-data; name="model"; filename="m"', "tiny") + END,
        UNREAD,
    ),
    "a model with a line end": (KIND, field("model", "ti\r\nny") + END, UNREAD),
    "a model of 2 KB": (KIND, field("model", "t" * 2048) + END, UNREAD),
    "a preamble": (KIND, "hello\r\n" + MODEL + END, UNREAD),
    "an epilogue": (KIND, MODEL + END + "more", UNREAD),
    "no end": (KIND, MODEL + FILE, UNREAD),
    "another boundary": (KIND.replace("b0", "b1"), MODEL + END, UNREAD),
    "a longer boundary behind a value": (
        KIND,
        MODEL + FILE.replace("--b\r", "--b0x\r") + END,
        UNREAD,
    ),
    "a boundary in quotes": ('multipart/form-data; boundary="b0"', MODEL + END, read(PLACE)),
    "a boundary with half its quotes": ('multipart/form-data; boundary="b0', MODEL + END, UNREAD),
    "two boundaries": (KIND + "; boundary=b1", MODEL + END, UNREAD),
    "another parameter": (KIND + "; charset=utf-16", MODEL + END, UNREAD),
    "no boundary": ("multipart/form-data", MODEL + END, UNREAD),
    "a name without quotes": (
        KIND,
        part("content-disposition: form-data; name=model", "tiny") + END,
        read(len(MODEL) - 2 - len("tiny\r\n")),
    ),
    "as .NET sends a file": (
        KIND,
        part(
            "Content-Type: audio/wav\r\nContent-Disposition: form-data; name=file; filename=a.wav;"
            " filename*=utf-8''a.wav",
            "RIFF",
        )
        + MODEL
        + END,
        read(PLACE + 122),
    ),
    "as okhttp sends a field": (
        KIND,
        part('Content-Disposition: form-data; name="model"\r\nContent-Length: 4', "tiny") + END,
        read(PLACE + 19),
    ),
    "as Apache HttpClient sends a field": (
        KIND,
        part(
            'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain;'
            " charset=UTF-8\r\nContent-Transfer-Encoding: 8bit",
            "tiny",
        )
        + END,
        read(PLACE + 74),
    ),
    "only an encoded file name": (
        KIND,
        MODEL + part("content-disposition: form-data; name=x; filename*=utf-8''a", "b") + END,
        UNREAD,
    ),
    "another disposition": (
        KIND,
        part('content-disposition: file; name="model"', "a") + END,
        UNREAD,
    ),
    "a model behind a bare line feed": (
        KIND,
        MODEL
        + part(
            'content-disposition: form-data; name="model"; a="\n'
            'content-disposition: form-data; name="stuff"',
            "nobody",
        )
        + END,
        UNREAD,
    ),
    "a line feed in a type": (
        KIND,
        MODEL + part('content-type: a\ncontent-disposition: form-data; name="x"', "1") + END,
        UNREAD,
    ),
    "a return in a type": (
        KIND,
        MODEL + part('content-type: a\rcontent-disposition: form-data; name="x"', "1") + END,
        UNREAD,
    ),
    "a NUL in a name": (
        KIND,
        MODEL + part('content-disposition: form-data; name="x\0"', "1") + END,
        UNREAD,
    ),
    "a part without headers": (KIND, MODEL + "--b0\r\n\r\nx\r\n" + END, UNREAD),
    "two names": (
        KIND,
        part('content-disposition: form-data; name="model"; name="x"', "tiny") + END,
        UNREAD,
    ),
    "an encoded name": (
        KIND,
        MODEL + part("content-disposition: form-data; name*=utf-8''model", "other") + END,
        UNREAD,
    ),
    "an escaped name": (
        KIND,
        MODEL + part('content-disposition: form-data; name="mo\\del"', "other") + END,
        UNREAD,
    ),
    "a folded header": (
        KIND,
        part('content-disposition: form-data;\r\n name="model"', "tiny") + END,
        UNREAD,
    ),
    "another header": (
        KIND,
        part('content-disposition: form-data; name="model"\r\nx-model: a', "tiny") + END,
        UNREAD,
    ),
    "bare line feeds": (KIND, (MODEL + END).replace("\r\n", "\n"), UNREAD),
    "a head of 5 KB": (KIND, part(AUDIO + ";" + " " * 5000, "x") + MODEL + END, UNREAD),
    "65 parts": (KIND, field("x", "1") * 64 + MODEL + END, UNREAD),
    "nothing": (KIND, "", UNREAD),
    "urlencoded": ("application/x-www-form-urlencoded", "model=tiny", UNREAD),
}


async def fields_of(rig: Rig, kind: str, body: bytes, path: str = PATH) -> dict[str, Any]:
    await rig.reset()
    await rig.client.post(path, content=body, headers={"content-type": kind})
    metadata = rig.services.streams[0][0].metadata_context.filter_metadata
    return dict(MessageToDict(metadata[Namespace.REQUEST]))


@pytest.mark.parametrize("name", CASES)
async def test_fields_of_a_form(rig: Rig, name: str) -> None:
    kind, body, expected = CASES[name]

    assert await fields_of(rig, kind, body.encode()) == expected


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][2] != UNREAD])
async def test_what_is_read_is_what_the_parser_of_vllm_reads(name: str) -> None:
    kind, body, expected = CASES[name]
    form = (await read_form(kind, body.encode())).values

    assert form.get("model") == expected.get("model")
    if "model" in expected:
        at = expected["model_at"]
        assert body.encode()[at : at + len(expected["model"])] == expected["model"].encode()


async def test_a_form_elsewhere_is_no_body(rig: Rig) -> None:
    assert await fields_of(rig, KIND, (MODEL + END).encode(), "/v1/chat/completions") == {
        **UNREAD,
        "fault": "type",
    }


@pytest.mark.parametrize(
    "kinds", [(KIND, KIND), (KIND, "multipart/form-data; boundary=b1"), (KIND, "b1")]
)
async def test_a_form_with_two_types_is_not_read(rig: Rig, kinds: tuple[str, str]) -> None:
    """Envoy joins them with a comma, which no boundary may have here."""
    headers = [("content-type", kind) for kind in kinds]
    body = (MODEL + FILE + END).encode()
    await rig.client.post(PATH, content=body, headers=headers)
    metadata = rig.services.streams[0][0].metadata_context.filter_metadata
    assert dict(MessageToDict(metadata[Namespace.REQUEST])) == UNREAD


async def test_a_form_of_the_largest_size_is_read(rig: Rig) -> None:
    audio = part(AUDIO, "\r\n--b" * 3_000_000)
    read_ = await fields_of(rig, KIND, (audio + MODEL + END).encode())

    assert read_ == read(len(audio) + PLACE)


def bent(body: str, rand: random.Random) -> str:
    """The body with some of its pieces replaced by other pieces of forms."""
    words = [
        "\r\n",
        "--b0",
        "--",
        'name="model"',
        "; ",
        ":",
        "tiny",
        "other",
        "\n",
        '"',
        " ",
        MODEL,
    ]
    for _ in range(rand.randint(1, 3)):
        at, length = rand.randrange(len(body)), rand.choice((0, 1, 2, 4, 20))
        body = body[:at] + rand.choice([*words, ""]) + body[at + length :]
    return body


async def test_bent_forms_are_read_alike_or_refused(rig: Rig) -> None:
    rand = random.Random(20261126)
    forms = [MODEL + FILE + field("stream", "true") + END, FILE + MODEL + END]
    read_count = 0
    for _ in range(600):
        body = bent(rand.choice(forms), rand).encode()
        seen = await fields_of(rig, KIND, body)
        if seen == UNREAD:
            continue
        read_count += 1
        try:
            theirs = (await asyncio.wait_for(read_form(KIND, body), PATIENCE_S)).values
        except VllmError:
            continue  # vLLM answers 400: nothing runs
        assert theirs.get("model") == seen.get("model"), body
    assert read_count > 40
