"""Callers of every standing, and somebody who issues and revokes keys, all without a pause."""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.box import small_chat

_PAUSE_S = 0.05
_CHANGE_PAUSE_S = 0.2
TIMEOUT_S = 10.0


@dataclass
class Changes:
    """Keys that were acknowledged: those that are live, and those that have ended."""

    apis: Sequence[str]
    token: str
    live: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    unanswered: int = 0

    async def run(self) -> None:
        """Issues two keys and revokes one of them, at one replica after the other."""
        while True:
            for api in self.apis:
                with suppress(httpx.HTTPError):
                    await self._change(api)
                await asyncio.sleep(_CHANGE_PAUSE_S)

    async def _change(self, api: str) -> None:
        headers = {"authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(base_url=api, headers=headers, timeout=TIMEOUT_S) as http:
            self.live.append((await self._post(http, _KEYS, {"user": "rita"}))["secret"])
            gone = await self._post(http, _KEYS, {"user": "rita"})
            await self._post(http, f"/api/v1/keys/{gone['key']['id']}/revoke", None)
            self.ended.append(gone["secret"])

    async def _post(self, http: httpx.AsyncClient, path: str, body: object) -> Any:
        self.unanswered += 1
        answer = (await http.post(path, json=body)).raise_for_status().json()
        self.unanswered -= 1
        return answer


_KEYS = "/api/v1/tenants/acme/keys"


class Callers:
    """One after the other asks with a key that is known, has ended, or is nobody's.

    `statuses` counts the answers to each kind; None for a request without one.
    """

    def __init__(self, url: str, known: Sequence[str], ended: Sequence[str]) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._keys: dict[str, Callable[[], str]] = {
            "known": lambda: secrets.choice(known),
            "ended": lambda: secrets.choice(ended),
            "stranger": lambda: f"sk-hg-{secrets.token_hex(32)}",
        }
        self.statuses: dict[str, Counter[int | None]] = defaultdict(Counter)

    async def run(self) -> None:
        """Asks until it is cancelled."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            while True:
                for kind, key in self._keys.items():
                    self.statuses[kind][await status(http, self._url, key())] += 1
                await asyncio.sleep(_PAUSE_S)


async def status(http: httpx.AsyncClient, url: str, key: str) -> int | None:
    """The status of one small chat with this key; None if nobody answers."""
    headers = {"authorization": f"Bearer {key}"}
    try:
        return (await http.post(url, json=small_chat(), headers=headers)).status_code
    except httpx.HTTPError:
        return None


@asynccontextmanager
async def working(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """These run inside the block."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
