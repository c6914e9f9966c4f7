"""The affinity reader on the real Envoy: which requests it shows as related, and what it hides."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from headgate.core.contract import Namespace, RequestKey
from headgate.core.lean_contract import HookPath
from tests.envoy_process import CHAT, Rig, running_envoy

pytestmark = pytest.mark.asyncio(loop_scope="module")

SALT = "0123456789abcdefSALT"
SYSTEM = {"role": "system", "content": 'You say {"yes"} or ] "no" \\ always.'}
USER = {"role": "user", "content": "Hi"}
OTHER = {"role": "user", "content": "Something else, and much longer" * 40}


@pytest_asyncio.fixture(params=HookPath, scope="module", loop_scope="module")
async def envoy_of_module(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with running_envoy(path=request.param, affinity_salt=SALT) as rig:
        yield rig


async def shown(rig: Rig, body: Any, path: str = CHAT, **headers: str) -> dict[str, Any]:
    """The reader's metadata about this body, as the services get it."""
    await rig.reset()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    await rig.post(data, path, authorization="Bearer x", **headers)
    if rig.box.path is HookPath.LEAN:
        context = rig.services.checks[0].attributes.metadata_context
    else:
        context = rig.services.streams[0][0].metadata_context
    values: dict[str, Any] = MessageToDict(context.filter_metadata[Namespace.REQUEST])
    return values


async def prompt_hash(rig: Rig, body: Any, path: str = CHAT) -> str | None:
    return (await shown(rig, body, path)).get(RequestKey.PROMPT_HASH)


def expected(beginning: bytes) -> str:
    return sha256(SALT.encode() + beginning[:512]).hexdigest()


def chat(*messages: dict[str, str], **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", **fields, "messages": list(messages)}


async def test_chats_with_one_system_prompt_have_one_hash(rig: Rig) -> None:
    first = expected(json.dumps(SYSTEM).encode())

    assert await prompt_hash(rig, chat(SYSTEM, USER)) == first
    assert await prompt_hash(rig, chat(SYSTEM, OTHER, USER, temperature=0.5)) == first
    assert await prompt_hash(rig, chat(USER)) == expected(json.dumps(USER).encode())


@pytest.mark.parametrize("length", [1, 30, 55, 56, 64, 119, 120, 490, 512, 2_000])
async def test_the_hash_is_sha256_over_the_salt_and_the_first_512_bytes(
    rig: Rig, length: int
) -> None:
    body = {"model": "tiny", "system": "x" * length, "messages": [USER]}

    assert await prompt_hash(rig, body, "/v1/messages") == expected(f'"{"x" * length}"'.encode())


async def test_responses_and_bodies_without_a_prompt_have_none(rig: Rig) -> None:
    body = {"model": "tiny", "instructions": "Be brief", "input": "Hi"}

    assert await prompt_hash(rig, body, "/v1/responses") is None
    assert await prompt_hash(rig, {"model": "tiny"}) is None
    assert await prompt_hash(rig, b"no json") is None


async def test_a_name_within_a_text_breaks_nothing(rig: Rig) -> None:
    tricky = {"role": "user", "content": '"messages": [ "system": {'}

    assert await prompt_hash(rig, chat(tricky, tools=[{"name": "a", "system": "b"}])) is not None
    assert await prompt_hash(rig, b'{"model": "tiny", "messages": [') is None


async def test_sessions_of_agents_are_shown_and_bounded(rig: Rig) -> None:
    values = await shown(rig, chat(USER), session_id="s1")
    long = await shown(rig, chat(USER), **{"x-session-affinity": "s" * 1_000})

    assert values[RequestKey.SESSION] == "s1"
    assert long[RequestKey.SESSION] == "s" * 256
    assert RequestKey.SESSION not in await shown(rig, chat(USER))


async def test_no_text_of_a_prompt_leaves_the_proxy(rig: Rig) -> None:
    values = await shown(rig, chat({"role": "system", "content": "the secret recipe"}, USER))

    assert "secret recipe" not in str(values)
