"""The fields of a request body for ext_proc: `cases/request_fields.json`, on the real Envoy."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headgate.core.contract import PLATFORM_FIELDS, Namespace, RequestKey
from headgate.dataplane import filters
from tests.envoy_process import CHAT, Rig, running_envoy

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = json.loads((Path(__file__).parent / "cases/request_fields.json").read_text("utf-8"))
MAX_STRING = 8 * 1024
DECIDING = (
    "model", "stream", "background", "n", "max_tokens", "max_completion_tokens",
    "max_output_tokens",
)  # fmt: skip
MEASURES = {RequestKey.TEXT_BYTES, RequestKey.FAULT_AT}
"""Nearly every body has one; the cases that are about them name them."""


def fields(rig: Rig, *measures: str) -> dict[str, Any]:
    """The request metadata of the one ext_proc message of this test, with only these `measures`."""
    assert [len(stream) for stream in rig.services.streams] == [1]
    metadata = rig.services.streams[0][0].metadata_context.filter_metadata
    values = MessageToDict(metadata[Namespace.REQUEST])
    return {key: value for key, value in values.items() if key not in MEASURES - {*measures}}


def size_bytes(rig: Rig) -> float:
    """The attribute request.size that ext_proc got."""
    attributes = rig.services.streams[0][0].attributes["envoy.filters.http.ext_proc"]
    return attributes.fields["request.size"].number_value


def body_of(case: dict[str, Any]) -> bytes:
    if "body_hex" in case:
        return bytes.fromhex(case["body_hex"])
    return str(case["body"]).replace("<9 KiB>", " " * 9 * 1024).encode()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_fields_of_a_body(rig: Rig, case: dict[str, Any]) -> None:
    content_type = case.get("content_type", "application/json")
    headers = {} if content_type is None else {"content-type": content_type}
    headers |= case.get("headers", {})
    await rig.client.post(CHAT, content=body_of(case), headers=headers)
    assert fields(rig, *case["expect"]) == case["expect"]
    assert size_bytes(rig) == len(body_of(case))


async def test_a_body_without_content_length_is_read_and_measured(rig: Rig) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"model":'
        yield b'"m"}'

    await rig.post(pieces())
    assert fields(rig) == {"body": "read", "model": "m"}
    assert size_bytes(rig) == 13


async def test_no_body_is_told_by_its_size_and_the_end_of_the_stream(rig: Rig) -> None:
    await rig.post(b"")
    assert size_bytes(rig) == 0
    assert rig.services.streams[0][0].request_headers.end_of_stream


async def test_a_get_without_body_ends_with_its_headers(rig: Rig) -> None:
    await rig.client.get("/v1/models")
    assert fields(rig) == {"body": "unreadable", "fault": "empty"}
    assert rig.services.streams[0][0].request_headers.end_of_stream


@pytest.mark.parametrize(("length", "seen"), [(MAX_STRING, True), (MAX_STRING + 1, False)])
async def test_a_string_above_8_kib_looks_absent(rig: Rig, length: int, seen: bool) -> None:
    await rig.post(json.dumps({"model": "m", "prompt_cache_key": "a" * length}).encode())
    assert ("prompt_cache_key" in fields(rig)) == seen
    assert fields(rig)["model"] == "m"


@pytest.mark.parametrize("name", DECIDING)
async def test_a_field_that_decides_is_never_hidden(rig: Rig, name: str) -> None:
    """For each field: vLLM would read a number that the filters do not show."""
    await rig.post(json.dumps({name: "0" * MAX_STRING + "3"}).encode())
    shown = fields(rig)
    assert shown.pop("fields", "n=-") == "n=-"
    assert shown == {"body": "read", "hidden": name}


async def test_every_field_of_the_platform_is_seen(rig: Rig) -> None:
    await rig.post(json.dumps(dict.fromkeys(PLATFORM_FIELDS, 0)).encode())
    assert fields(rig) == {"body": "read", "platform": ",".join(PLATFORM_FIELDS)}


async def test_a_script_that_fails_leaves_the_body_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy still lets the request pass; ext_proc refuses it by this value."""
    source = filters.reader_source() + "\nfunction read_body() error('broken') end\n"
    source = source.replace("local function read_body", "function read_body")
    monkeypatch.setattr(filters, "reader_source", lambda: source)
    async with running_envoy() as broken:
        await broken.post(b'{"model":"m"}')
        assert fields(broken) == {"body": "parsed"}


@pytest.mark.parametrize(("depth", "body"), [(999, "read"), (1_000, "unreadable")])
async def test_nesting_is_bounded(rig: Rig, depth: int, body: str) -> None:
    await rig.post(b'{"model":"m","x":' + b"[" * depth + b"]" * depth + b"}")
    assert fields(rig)["body"] == body


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
async def test_a_bomb_of_brackets_is_unreadable(rig: Rig, opening: bytes) -> None:
    await rig.post(b'{"model":"m","x":' + opening * 200_000)
    assert fields(rig) == {"body": "unreadable", "fault": "depth"}
