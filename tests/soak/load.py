"""Requests at a steady rate, each on a connection of its own, and what became of each."""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from tests.patience import PATIENCE_S
from tests.soak.kinds import (
    KINDS,
    MINUTE_TENANT,
    SLOTS_TENANT,
    TENANTS,
    Caller,
    Kind,
    callers,
    wire,
)

WITHIN_S = PATIENCE_S
"""A request that takes longer is stuck."""
MOST_AT_ONCE = 400
_LATE_S = 1.0
_EARLY_S = 0.05
_USAGE = re.compile(rb'"usage": ?(\{.*?\})[,}]')


REFUSED = frozenset({400, 401, 404, 429})
"""The statuses of requests that no limit holds. A 503 may also be the upstream's."""


@dataclass(slots=True)
class Sent:
    """One request as its client saw it. Times are seconds since the epoch.

    `status` is None where no answer began; `events` of those that came; `tokens` is the usage
    that the client read, None where there was none; `failure` is what ended it unexpectedly.
    """

    kind: Kind
    caller: Caller
    started_s: float
    ended_s: float = 0.0
    status: int | None = None
    request_id: str = ""
    events: int = 0
    tokens: int | None = None
    whole: bool = False
    failure: str = ""

    @property
    def may_hold(self) -> bool:
        """Whether it may have been admitted, so that its log entry had something to settle."""
        return self.status not in REFUSED


class Load:
    """Offers `rate` requests a second until it is ended.

    When more than MOST_AT_ONCE run, or the machine is late by more than a second, requests are
    skipped and counted as skipped. Then the proxy gets fewer requests than planned.
    """

    def __init__(self, port: int, rate: float, seed: int) -> None:
        self.sent: list[Sent] = []
        self.skipped = 0
        self.running: set[asyncio.Task[None]] = set()
        self._port = port
        self._rate = rate
        self._random = random.Random(seed)
        self._weights = [kind.weight for kind in KINDS]

    async def run(self, until_s: float) -> None:
        """Offers requests until the monotonic time `until_s`, then waits for all of them."""
        due_s = time.monotonic()
        while (now_s := time.monotonic()) < until_s:
            if now_s < due_s:
                await asyncio.sleep(due_s - now_s)
                continue
            late_s = now_s - due_s
            if late_s > _LATE_S:
                self.skipped += int(late_s * self._rate)
                due_s = now_s
            due_s += 1 / self._rate
            self._offer()
        while self.running:
            await asyncio.wait(set(self.running), timeout=1)

    def _offer(self) -> None:
        kind, caller = self._choose()
        if len(self.running) >= MOST_AT_ONCE:
            self.skipped += 1
            return
        sent = Sent(kind, caller, time.time())
        self.sent.append(sent)
        task = asyncio.create_task(self._ask(sent, self._random.randint(1, 20)))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    def _choose(self) -> tuple[Kind, Caller]:
        (kind,) = self._random.choices(KINDS, self._weights)
        tenants = (*TENANTS, *TENANTS, MINUTE_TENANT, SLOTS_TENANT)
        return kind, self._random.choice(callers(self._random.choice(tenants)))

    async def _ask(self, sent: Sent, leaves_after: int) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._talk(sent, leaves_after)
        except TimeoutError:
            sent.failure = "stuck"
        except (OSError, EOFError) as error:  # cut off: `sent` has what came before
            sent.failure = type(error).__name__
        sent.ended_s = time.time()

    async def _talk(self, sent: Sent, leaves_after: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(wire(sent.kind, sent.caller))
            if sent.kind.ending == "left" and "stream" not in sent.kind.body:
                await asyncio.sleep(_EARLY_S)  # gone before its answer begins
                return
            headers = await _head(reader, sent)
            text = bytearray()
            async for piece in _pieces(reader, headers):
                text += piece
                sent.events = text.count(b"\ndata: {") + text.startswith(b"data: {")
                if sent.kind.ending == "left" and sent.events >= leaves_after:
                    return
            sent.whole = True
            sent.tokens = _tokens(bytes(text))
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def _head(reader: asyncio.StreamReader, sent: Sent) -> dict[str, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    sent.request_id = headers.get("x-request-id", "")
    sent.status = int(status.split()[1])
    return headers


async def _pieces(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body as it comes. Raises EOFError or OSError where it breaks off."""
    if "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
        return
    while True:
        line = await reader.readline()
        if not line:
            raise EOFError
        size = int(line, 16)
        piece = await reader.readexactly(size + 2)
        if not size:
            return
        yield piece[:-2]


def _tokens(text: bytes) -> int | None:
    """The last usage in an answer, streamed or not; None where there is none."""
    for usage in reversed(_USAGE.findall(text)):
        with suppress(ValueError):
            counts = json.loads(usage + b"}" * (usage.count(b"{") - usage.count(b"}")))
            total = counts.get("total_tokens")
            if total is not None:
                return int(total)
    return None
