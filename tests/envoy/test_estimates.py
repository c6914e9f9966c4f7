"""What is held for images, for chats without a maximum, and after lessons that mean to deceive.

The upstream is scripted, because the simulator's model takes no images and has one vocabulary.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from extproc.estimate import LEAST_TOKENS_PER_BYTE, START_TOKENS_PER_BYTE
from tests.box import Box, policy, running_box
from tests.fake_upstream import Answer, Received, Upstream, reply
from tests.patience import PATIENCE_S, wait_until

IMAGE_TOKENS = 1_049
"""What a vision model reported for the image of a bug report."""
PNG = base64.b64encode(bytes(634 * 1024 * 3 // 4)).decode()
SENT_ALONG = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
BY_URL = {"type": "image_url", "image_url": {"url": "https://pictures.example.org/a.png"}}
CHEAP, DENSE = "cheap", "dense"
BYTES_PER_TOKEN = {CHEAP: 10.0, DENSE: 1.8}
"""By the first word of a text: the vocabulary in which the upstream counts it."""
LIMIT = 20_000


async def count_and_answer(received: Received, writer: asyncio.StreamWriter) -> None:
    """A vision model that stops by itself after 20 tokens."""
    if not received.body:  # the box asks whether the server is there
        await reply(404, b"{}")(received, writer)
        return
    asked = json.loads(received.body)
    prompt = 0
    content = asked["messages"][0]["content"]
    for part in content if isinstance(content, list) else [text(content)]:
        if part["type"] == "image_url":
            prompt += IMAGE_TOKENS
        else:
            words = part["text"]
            prompt += round(len(words) / BYTES_PER_TOKEN.get(words.partition(" ")[0], 4.5))
    completion = min(20, asked.get("max_tokens", 20))
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    await reply(200, json.dumps({"model": "tiny", "usage": usage}).encode())(received, writer)


def after(decided: asyncio.Event) -> Answer:
    """Counts and answers once the event has happened."""

    async def answer(received: Received, writer: asyncio.StreamWriter) -> None:
        if received.body:
            await decided.wait()
        await count_and_answer(received, writer)

    return answer


@pytest.fixture
async def vision() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    upstream.answer = count_and_answer
    await upstream.start()
    yield upstream
    await upstream.stop()


@dataclass(frozen=True)
class Door:
    """A box, and a client of it."""

    box: Box
    client: httpx.AsyncClient

    async def ask(
        self, body: dict[str, Any], user: str = "alice", padding: int = 0
    ) -> httpx.Response:
        """Sends the chat, after so many spaces."""
        content = b" " * padding + json.dumps(body).encode()
        headers = {**self.box.headers(user), "content-type": "application/json"}
        return await self.client.post("/v1/chat/completions", content=content, headers=headers)

    async def at_once(
        self, number: int, body: dict[str, Any], user: str = "alice", padding: int = 0
    ) -> list[httpx.Response]:
        return await asyncio.gather(*(self.ask(body, user, padding) for _ in range(number)))

    async def settled(self, answers: list[httpx.Response]) -> list[dict[str, Any]]:
        """The records of these answers, once each of them is settled."""
        ids = [answer.headers["x-request-id"] for answer in answers]

        def written() -> list[dict[str, Any]] | None:
            found = {record["request_id"]: record for record in self.box.records()}
            return [found[id_] for id_ in ids] if found.keys() >= set(ids) else None

        records: list[dict[str, Any]] = await asyncio.to_thread(wait_until, written, "the records")
        await asyncio.to_thread(self.box.record_of, ids[-1])
        return records


@asynccontextmanager
async def limited(folder: Path, upstream: Upstream, limits: str) -> AsyncIterator[Door]:
    """A box that starts in a thread: meanwhile it asks the upstream, which runs in this one."""
    policy_text = policy(upstream.url, limits=limits).replace("tokens: 8192", "tokens: 131072")
    with ExitStack() as stack:
        box = await asyncio.to_thread(stack.enter_context, running_box(folder, policy_text))
        async with httpx.AsyncClient(base_url=box.url, timeout=PATIENCE_S) as client:
            yield Door(box, client)


def chat(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": list(content)}], **fields}


def text(of: str, size_bytes: int = 40) -> dict[str, Any]:
    """A part of this vocabulary and size."""
    return {"type": "text", "text": of + " " + "x" * (size_bytes - len(of) - 1)}


def passed(answers: list[httpx.Response]) -> int:
    assert {answer.status_code for answer in answers} <= {200, 429}
    return sum(answer.status_code == 200 for answer in answers)


async def test_ten_chats_with_a_large_image_pass_a_days_100_000_tokens(
    vision: Upstream, tmp_path: Path
) -> None:
    """Held as text, one such image would take all of it."""
    body = chat(text("what"), SENT_ALONG, max_tokens=20)
    async with limited(tmp_path, vision, "[{count: tokens, limit: 100000, per: day}]") as door:
        first = await door.ask(body)
        [record] = await door.settled([first])
        answers = await door.at_once(10, body)

    assert first.status_code == 200
    assert len(first.request.content) > 634 * 1024
    assert 2_048 < record["estimated_tokens"] < 2_300
    assert record["prompt_tokens"] == IMAGE_TOKENS + 9
    left = 100_000 - record["estimated_tokens"]
    assert int(first.headers["x-ratelimit-remaining-tokens"]) == left
    assert passed(answers) == 10


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
async def test_8_of_10_chats_without_a_maximum_pass_500_tokens_a_minute(
    vision: Upstream, tmp_path: Path, together: bool
) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    async with limited(tmp_path, vision, "[{count: tokens, limit: 500, per: minute}]") as door:
        if together:
            answers = await door.at_once(10, body)
        else:
            answers = []
            for _ in range(10):
                answers.append(await door.ask(body))
                await door.settled(answers[-1:])

    assert passed(answers) >= 8


async def test_lessons_of_another_user_do_not_make_a_text_smaller(
    vision: Upstream, tmp_path: Path
) -> None:
    """60 chats of each kind that taught tokens per byte far below any text's."""
    limits = f"[{{count: tokens, limit: {LIMIT}, per: year, users: [alice]}}]"
    async with limited(tmp_path, vision, limits) as door:
        lessons = await door.at_once(60, chat(text("what"), SENT_ALONG, max_tokens=4), "bob")
        lessons += await door.at_once(60, chat(text("what"), BY_URL, max_tokens=4), "bob")
        lessons += await door.at_once(60, chat(text("what"), max_tokens=4), "bob", padding=500_000)
        await door.settled(lessons)
        answers = await door.at_once(20, chat(text("what", 40_000), max_tokens=4))

    assert passed(lessons) == 180
    assert passed(answers) == 1  # it needs more than the limit, so it holds all of it


async def test_usage_exceeds_a_limit_by_the_factor_of_the_floor_at_most(
    vision: Upstream, tmp_path: Path
) -> None:
    """The worst that a user can do: cheap texts, and then dense ones, all at once. No answer comes
    before all are decided, as its settlement would leave no room for the next one."""
    limits = f"[{{count: tokens, limit: {LIMIT}, per: year, users: [alice]}}]"
    async with limited(tmp_path, vision, limits) as door:
        lessons = [await door.ask(chat(text(CHEAP, 400), max_tokens=1)) for _ in range(50)]
        taught = await door.settled(lessons)
        decided = asyncio.Event()
        vision.answer = after(decided)
        asked = chat(text(DENSE, 32_000), max_tokens=1)
        asking = [asyncio.create_task(door.ask(asked)) for _ in range(20)]
        async with asyncio.timeout(PATIENCE_S):
            for refused in islice(asyncio.as_completed(asking), 18):
                await refused
        decided.set()
        answers = await asyncio.gather(*asking)
        records = await door.settled([each for each in answers if each.status_code == 200])

    held = sum(record["estimated_tokens"] for record in records)
    spent = sum(record["prompt_tokens"] + record["completion_tokens"] for record in taught)
    used = spent + sum(record["prompt_tokens"] for record in records)
    assert len(taught) == 50
    assert len(records) == 2
    assert spent + held <= LIMIT
    assert LIMIT < used <= LIMIT * START_TOKENS_PER_BYTE / LEAST_TOKENS_PER_BYTE
