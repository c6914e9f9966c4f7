"""Clients of four tenants at once, and what each of them saw of every request."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from tests.box import small_chat

LONG_INTERVAL_S = 0.05
_PAUSE_S = 0.2


@dataclass(slots=True)
class Sent:
    """One request as its client saw it. Times are seconds since the epoch.

    `status` and `answered_s` are None where no answer began; `tokens` is the usage that the
    client read, None where it left or was cut off before.
    """

    tenant: str
    started_s: float
    status: int | None = None
    answered_s: float | None = None
    ended_s: float = 0.0
    request_id: str = ""
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to ask: what the body says more, what the simulator is told, who leaves early."""

    body: dict[str, Any]
    simulate: str = ""
    leaves: bool = False


_STREAM = {"stream": True, "stream_options": {"include_usage": True}}
_PLAIN = Kind({"max_tokens": 4})
_STREAMED = Kind({"max_tokens": 40, **_STREAM})
_LEFT = Kind({"max_tokens": 200, **_STREAM}, leaves=True)


def _long(seconds: float) -> Kind:
    tokens = int(seconds / LONG_INTERVAL_S)
    return Kind({"max_tokens": tokens, **_STREAM}, f"interval={LONG_INTERVAL_S}")


class Load:
    """Requests of all `keys` (tenant: API key) until it ends; streams are left then."""

    def __init__(self, url: str, keys: dict[str, str], long_s: float) -> None:
        self.sent: list[Sent] = []
        self._url = f"{url}/v1/chat/completions"
        self.keys = keys
        self._kinds = (_PLAIN, _PLAIN, _PLAIN, _STREAMED, _STREAMED, _LEFT, _long(long_s))
        self._ends = False

    async def run(self) -> None:
        """Seven clients for each tenant, each one request after the other."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with (
            httpx.AsyncClient(limits=limits) as client,
            asyncio.TaskGroup() as clients,
        ):
            for tenant in self.keys:
                for number, kind in enumerate(self._kinds):
                    clients.create_task(self._client(client, tenant, kind, number))

    def end(self) -> None:
        self._ends = True

    def where(self, chosen: Callable[[Sent], bool]) -> list[Sent]:
        """Those sent so far that are chosen."""
        return [sent for sent in self.sent if chosen(sent)]

    async def _client(self, client: httpx.AsyncClient, tenant: str, kind: Kind, n: int) -> None:
        await asyncio.sleep(n * _PAUSE_S / len(self._kinds))
        while not self._ends:
            sent = Sent(tenant, time.time())
            self.sent.append(sent)
            with suppress(httpx.HTTPError):  # cut off: `sent` has what came before
                await self._ask(client, kind, sent)
            sent.ended_s = time.time()
            await asyncio.sleep(_PAUSE_S)

    async def _ask(self, client: httpx.AsyncClient, kind: Kind, sent: Sent) -> None:
        headers = {"authorization": f"Bearer {self.keys[sent.tenant]}"}
        if kind.simulate:
            headers["x-simulate"] = kind.simulate
        body = {**small_chat(), **kind.body}
        async with client.stream("POST", self._url, headers=headers, json=body) as answer:
            sent.status, sent.answered_s = answer.status_code, time.time()
            sent.request_id = answer.headers.get("x-request-id", "")
            if answer.status_code != 200:
                await answer.aread()
                return
            async for line in answer.aiter_lines():
                sent.tokens = _tokens(line) or sent.tokens
                if kind.leaves or self._ends:
                    break


def _tokens(line: str) -> int | None:
    """The usage that a line of an answer carries, streamed or not."""
    text = line.removeprefix("data: ")
    usage = json.loads(text).get("usage") if text.startswith("{") else None
    return int(usage["total_tokens"]) if usage else None


@asynccontextmanager
async def loaded(url: str, keys: dict[str, str], long_s: float) -> AsyncIterator[Load]:
    """A load that runs inside the block; after it every request has ended."""
    load = Load(url, keys, long_s)
    running = asyncio.create_task(load.run())
    try:
        yield load
        load.end()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
