"""Files of adapters that are deleted in every wrong order: the real vLLM never misses them.

HEADGATE_TEST_UPSTREAM is the URL of a vLLM with --max-loras 4 and --max-cpu-loras 8.
HEADGATE_TEST_ADAPTERS is the folder with `base`, `lora-b` and `lora-c`.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from headgate.program.adapter_agent import AgentSettings, running_agent
from headgate.program.settings import Address
from tests.box import small_chat
from tests.patience import PATIENCE_S

URL = os.environ.get("HEADGATE_TEST_UPSTREAM", "")
ADAPTERS = os.environ.get("HEADGATE_TEST_ADAPTERS", "")
LIVE, LISTED = 4, 8
LONG_TOKENS = 6_000
"""A request of this length runs until its client leaves."""

pytestmark = pytest.mark.skipif(not (URL and ADAPTERS), reason="only for a real vLLM")


@dataclass(frozen=True)
class Pod:
    """A vLLM and its agent. `base` is the name that adapters were trained on."""

    agent: httpx.AsyncClient
    vllm: httpx.AsyncClient
    folder: Path
    base: str

    async def load(self, *versions: str) -> None:
        for version in versions:
            order = {"source": "b", "max_rank": 8, "trained_on": [self.base]}
            copied = await self.agent.put(f"/versions/{version}", json=order)
            assert copied.status_code == 200, copied.text
            body = {"lora_name": version, "lora_path": str(self.folder / version)}
            loaded = await self.vllm.post("/v1/load_lora_adapter", json=body)
            assert loaded.status_code == 200, loaded.text

    async def unload(self, *versions: str) -> None:
        for version in versions:
            body = {"lora_name": version}
            answer = await self.vllm.post("/v1/unload_lora_adapter", json=body)
            assert answer.status_code == 200, answer.text

    async def delete(self, version: str) -> tuple[int, str]:
        """The agent's status, and its reason not to."""
        answer = await self.agent.delete(f"/versions/{version}")
        return answer.status_code, answer.json()["error"] if answer.content else ""

    async def ask(self, version: str) -> None:
        answer = await self.vllm.post(
            "/v1/chat/completions", json={**small_chat(), "model": version}
        )
        assert answer.status_code == 200, answer.text

    @asynccontextmanager
    async def running(self, version: str) -> AsyncIterator[None]:
        """A request that runs until the end of the block."""
        more = {"max_tokens": LONG_TOKENS, "ignore_eos": True, "stream": True, "model": version}
        post = self.vllm.stream("POST", "/v1/chat/completions", json={**small_chat(), **more})
        async with post as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            yield
            await lines.aclose()

    async def waits(self) -> None:
        """Returns once a request waits for a slot of an adapter."""
        async with asyncio.timeout(PATIENCE_S):
            while 'reason="deferred"} 0.0' in (await self.vllm.get("/metrics")).text:  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.05)

    async def deletes(self, *versions: str) -> None:
        """Returns once the files are deleted, as nobody needs them any more."""
        async with asyncio.timeout(PATIENCE_S):
            for version in versions:
                while (await self.delete(version))[0] == 409:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    sources, folder = tmp_path / "sources", tmp_path / "pod"
    folder.mkdir()
    shutil.copytree(Path(ADAPTERS) / "lora-b", sources / "b")
    config = json.loads((sources / "b" / "adapter_config.json").read_text())
    settings = AgentSettings(
        address=Address("127.0.0.1", 0),
        vllm=URL,
        sources=sources,
        folder=folder,
        base_config=Path(ADAPTERS) / "base" / "config.json",
    )
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(running_agent(settings))
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=PATIENCE_S))
            for url in (agent, URL)
        ]
        pod = Pod(clients[0], clients[1], folder, config["base_model_name_or_path"])
        yield pod
        for card in (await pod.vllm.get("/v1/models")).json()["data"]:
            if "@" in card["id"]:
                await pod.unload(card["id"])
        assert (await pod.vllm.get("/health")).status_code == 200


async def test_a_listed_adapter_that_left_all_caches_is_read_again(pod: Pod) -> None:
    """More are listed than vLLM keeps in memory, so that it reads the files of some again."""
    versions = [f"listed@{number}" for number in range(LISTED + 2)]
    await pod.load(*versions)
    for version in versions:
        assert await pod.delete(version) == (409, "vLLM lists it")
    for version in versions:
        await pod.ask(version)


async def test_a_request_that_waits_for_a_slot_keeps_its_files_after_the_unload(pod: Pod) -> None:
    """Others were loaded after its adapter, so vLLM has to read the files again."""
    busy = [f"busy@{number}" for number in range(LIVE)]
    await pod.load("late@1", *(f"other@{number}" for number in range(LISTED)), *busy)
    async with AsyncExitStack() as running:
        for version in busy:
            await running.enter_async_context(pod.running(version))
        late = asyncio.create_task(pod.ask("late@1"))
        await pod.waits()
        await pod.unload("late@1")
        assert await pod.delete("late@1") == (409, "requests wait, perhaps for it")
    await late
    await pod.deletes("late@1")


async def test_a_request_that_runs_keeps_its_files_after_the_unload(pod: Pod) -> None:
    await pod.load("running@1")
    async with pod.running("running@1"):
        await pod.unload("running@1")
        assert await pod.delete("running@1") == (409, "requests for it run")
    await pod.deletes("running@1")


async def test_files_that_go_between_copy_and_load_are_missed_by_nobody(pod: Pod) -> None:
    await pod.load("first@1")
    await pod.unload("first@1")
    await pod.deletes("first@1")
    body = {"lora_name": "first@1", "lora_path": str(pod.folder / "first@1")}
    assert (await pod.vllm.post("/v1/load_lora_adapter", json=body)).status_code == 404
    await pod.load("second@1")
    await pod.ask("second@1")
