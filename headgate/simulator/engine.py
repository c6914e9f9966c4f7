"""Plays an answer at a token's pace, and breaks it where a failure is asked for."""

import asyncio
from dataclasses import dataclass

from headgate.simulator.exchange import EngineStoppedError, Exchange
from headgate.simulator.failures import Break
from headgate.simulator.generate import GeneratedAnswer
from headgate.simulator.metrics import EngineMetrics, Run
from headgate.simulator.scheduler import Scheduler
from headgate.simulator.streams import Writer
from headgate.simulator.vllm_errors import engine_dead

_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Pace:
    """How an answer is played."""

    ttft_s: float
    """Seconds to the first token."""
    token_interval_s: float
    """Seconds from token to token."""
    breaks: tuple[Break, int] | None
    """How it breaks, and after how many events; None: it does not."""


class _BrokenOffError(Exception):
    """The answer has come to where `x-simulate` breaks it."""

    def __init__(self, kind: Break) -> None:
        super().__init__(kind)
        self.kind = kind


async def send_whole(exchange: Exchange, body: bytes, kind: Break | None) -> None:
    """An answer that is not streamed; `cut` and `reset` break it off in the middle."""
    await exchange.start(200, _JSON, len(body))
    if kind in ("cut", "reset"):
        await exchange.send(body[: len(body) // 2])
        await (exchange.cut() if kind == "cut" else exchange.reset())
    else:
        await exchange.send(body, last=True)


class Playback:
    """One answer on its way to one client. ExchangeEndedError: the client or the server is gone."""

    def __init__(
        self,
        exchange: Exchange,
        answer: GeneratedAnswer,
        pace: Pace,
        *,
        run: Run,
        metrics: EngineMetrics,
        scheduler: Scheduler,
    ) -> None:
        self._exchange = exchange
        self._metrics = metrics
        self._scheduler = scheduler
        self._run = run
        self._answer = answer
        self._shortest = min(choice.tokens for choice in answer.choices)
        self._breaks = pace.breaks
        self._events_remaining = self._breaks[1] if self._breaks else None
        self._due_s = asyncio.get_running_loop().time() + pace.ttft_s
        self._interval_s = pace.token_interval_s

    def end(self) -> None:
        """The answer is over, however it ended."""
        self._metrics.end(self._run)

    async def stream(self, writer: Writer) -> None:
        """The answer as events."""
        opening = writer.opening()  # before the 200: a request nested too deeply fails here
        await self._exchange.start(200, _EVENTS, None)
        try:
            try:
                await self._send_events(writer, opening)
            except _BrokenOffError as broken:
                await self._break_stream(broken.kind)
        except EngineStoppedError:
            await self._end_as_dead(writer)

    async def whole(self, writer: Writer) -> None:
        """The answer as one body, once all tokens are there."""
        kind = self._breaks[0] if self._breaks else None
        if kind == "error":
            self._metrics.finish(self._run, failed=True)
            raise engine_dead()
        for position in range(self._answer.steps):
            await self._token(position)
        if kind == "stall":
            await self._exchange.pause_forever()
        self._metrics.finish(self._run)
        is_told = self._answer.show_times and len(self._answer.choices) == 1
        body = writer.body(self._run.times_ms() if is_told else None)
        await send_whole(self._exchange, body, kind)

    async def _send_events(self, writer: Writer, opening: list[bytes]) -> None:
        if opening:
            await self._send(opening)
        for position in range(self._answer.steps):
            await self._token(position)
            await self._send(writer.step(position))
        await self._send(writer.closing(), last=True)
        self._metrics.finish(self._run)

    async def _token(self, position: int) -> None:
        """Waits for the token at `position`. A late token does not delay those after it."""
        await self._exchange.pause_until(self._due_s)
        self._due_s += self._interval_s + self._scheduler.slowdown_s
        live = len(self._answer.choices)
        if position >= self._shortest:
            live = sum(position < choice.tokens for choice in self._answer.choices)
        self._metrics.step(self._run, live)

    async def _send(self, events: list[bytes], *, last: bool = False) -> None:
        remaining = self._events_remaining
        if remaining is None or len(events) + last <= remaining:
            self._events_remaining = None if remaining is None else remaining - len(events)
            await self._exchange.send(b"".join(events), last=last)
            return
        if self._breaks is not None:
            await self._exchange.send(b"".join(events[:remaining]))
            raise _BrokenOffError(self._breaks[0])

    async def _break_stream(self, kind: Break) -> None:
        if kind == "cut":
            await self._exchange.cut()
        elif kind == "reset":
            await self._exchange.reset()
        elif kind == "stall":
            await self._exchange.pause_forever()
        else:
            raise EngineStoppedError

    async def _end_as_dead(self, writer: Writer) -> None:
        self._metrics.finish(self._run, failed=True)
        events = writer.broken()
        if events is None:
            await self._exchange.cut()
        else:
            await self._exchange.send(b"".join(events), last=True)
