"""The model list, and adapters that come and go."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from headgate.simulator.server import running
from headgate.simulator.settings import Settings
from tests.patience import PATIENCE_S
from tests.simulator.requests_and_events import CHAT, asking, events_of

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"


@pytest.fixture
async def own() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server of the test's own, with an alias and one adapter."""
    settings = Settings(
        models=("tiny", "alias"), adapters=("lora-a",), ttft_s=0, token_interval_s=0
    )
    async with (
        running(settings, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        yield http


async def test_the_list_names_base_models_then_adapters(own: httpx.AsyncClient) -> None:
    cards = (await own.get("/v1/models")).json()["data"]

    assert [(card["id"], card["parent"], card["max_model_len"]) for card in cards] == [
        ("tiny", None, 8192),
        ("alias", None, 8192),
        ("lora-a", "tiny", None),
    ]
    assert list(cards[0]) == [
        *("id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"),
    ]


async def test_an_alias_answers_with_the_first_name(own: httpx.AsyncClient) -> None:
    answer = (await own.post(CHAT, json=asking(CHAT, model="alias"))).json()

    assert answer["model"] == "tiny"


async def test_an_adapter_is_loaded_used_and_unloaded(own: httpx.AsyncClient) -> None:
    adapter = {"lora_name": "lora-b", "lora_path": "/adapters/lora-b"}
    ask = asking(CHAT, model="lora-b")
    assert (await own.post(CHAT, json=ask)).status_code == 404

    loaded = await own.post(LOAD, json=adapter)
    assert (loaded.status_code, loaded.text) == (
        200,
        "Success: LoRA adapter 'lora-b' added successfully.",
    )
    assert "content-type" not in loaded.headers
    assert (await own.post(CHAT, json=ask)).json()["model"] == "lora-b"
    assert (await own.post(LOAD, json=adapter)).status_code == 400
    assert (await own.post(LOAD, json=adapter | {"load_inplace": True})).status_code == 200

    unloaded = await own.post(UNLOAD, json={"lora_name": "lora-b", "lora_int_id": 3})
    assert unloaded.text == "Success: LoRA adapter 'lora-b' removed successfully."
    assert (await own.post(CHAT, json=ask)).status_code == 404


async def test_an_unknown_model_names_base_models_but_no_adapter(own: httpx.AsyncClient) -> None:
    message = (await own.post(CHAT, json=asking(CHAT, model="x"))).json()["error"]["message"]

    assert message == "The model `x` does not exist. Valid aliases: tiny, alias."


async def test_a_running_stream_outlives_its_adapter(own: httpx.AsyncClient) -> None:
    headers = {"x-simulate": "headers_delay=0,interval=0.01"}
    body = asking(CHAT, 20, model="lora-a", stream=True)
    async with (
        asyncio.timeout(PATIENCE_S),
        own.stream("POST", CHAT, json=body, headers=headers) as answer,
    ):
        chunks = answer.aiter_text()
        text = await anext(chunks)
        assert (await own.post(UNLOAD, json={"lora_name": "lora-a"})).status_code == 200
        text += "".join([chunk async for chunk in chunks])

    assert len(events_of(text)) == 1 + 20 + 1
    assert (await own.post(CHAT, json=body)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")]
)
async def test_health_is_an_empty_200(own: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await own.request(method, path)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_version_and_load_are_told(own: httpx.AsyncClient) -> None:
    assert (await own.get("/version")).json() == {"version": "0.32.0"}
    assert (await own.get("/load")).json() == {"server_load": 0}
