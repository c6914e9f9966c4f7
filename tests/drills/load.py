"""Clients that send requests at fixed rates, whatever becomes of the answers."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from tests.box import KEYS

_AT_ONCE = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Clients that are alike. `rate` is in requests a second, `leave_after` in chunks."""

    user: str
    model: str
    rate: float
    stream: bool = True
    max_tokens: int = 12
    key: str | None = None
    leave_after: int | None = None
    simulate: str = ""


USUAL = (
    Clients(user="alice", model="tiny", rate=3),
    Clients(user="carol", model="tiny", rate=1, stream=False),
    Clients(user="carol", model="small", rate=2),
)
"""A usual day: both tenants, both models, streams and plain answers."""


class Load:
    """Sends what `now` says, which may be replaced at any time."""

    def __init__(self, url: str) -> None:
        self.now: tuple[Clients, ...] = USUAL
        self.is_over = False
        self._url = f"{url}/v1/chat/completions"
        self._sent = 0

    async def run(self) -> None:
        """Sends until the load is over."""
        sent_of: dict[Clients, tuple[float, int]] = {}
        tasks: set[asyncio.Task[None]] = set()
        clock = asyncio.get_running_loop().time
        limits = httpx.Limits(max_connections=_AT_ONCE)
        # The door's certificate is one that only the drill knows.
        async with httpx.AsyncClient(limits=limits, timeout=30, verify=False) as http:  # noqa: S501
            while not self.is_over:
                for clients in self.now:
                    began_s, sent = sent_of.setdefault(clients, (clock(), 0))
                    if sent < (clock() - began_s) * clients.rate and len(tasks) < _AT_ONCE:
                        sent_of[clients] = (began_s, sent + 1)
                        task = asyncio.create_task(self._send(http, clients))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                sent_of = {clients: sent_of[clients] for clients in self.now if clients in sent_of}
                await asyncio.sleep(0.02)
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, http: httpx.AsyncClient, clients: Clients) -> None:
        self._sent += 1
        headers = {"authorization": f"Bearer {clients.key or KEYS[clients.user]}"}
        if clients.simulate:
            headers["x-simulate"] = clients.simulate
        body = {
            "model": clients.model,
            "stream": clients.stream,
            "max_tokens": clients.max_tokens,
            "prompt_cache_key": f"conversation {self._sent % 200}",
            "messages": [{"role": "user", "content": "hello " * (1 + self._sent % 30)}],
        }
        with contextlib.suppress(httpx.HTTPError):
            async with http.stream("POST", self._url, json=body, headers=headers) as answer:
                chunks = 0
                async for _ in answer.aiter_raw():
                    chunks += 1
                    if clients.leave_after is not None and chunks >= clients.leave_after:
                        return


@contextlib.contextmanager
def running_load(url: str) -> Iterator[Load]:
    """A load in a thread of its own, ended with the block."""
    load = Load(url)
    thread = threading.Thread(target=lambda: asyncio.run(load.run()))
    thread.start()
    try:
        yield load
    finally:
        load.is_over = True
        thread.join()
