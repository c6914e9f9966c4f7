"""The engine's batch: who may enter it, when a prompt is computed, and how fast tokens come.

Three of vLLM's properties decide how long a client waits under load. The batch has room for
`--max-num-seqs` sequences, first come, first served, or by priority. Prompts share the engine.
Every sequence in the batch makes each step longer.
"""

import asyncio
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from headgate.simulator.exchange import Exchange, ExchangeEndedError
from headgate.simulator.settings import Settings


@dataclass(slots=True, order=True, kw_only=True)
class _Turn:
    """One request in the queue, in the order of priority and arrival."""

    priority: int
    arrival: int
    sequences: int = field(compare=False)
    waiter: asyncio.Future[None] = field(compare=False)
    is_admitted: bool = field(default=False, compare=False)


class Scheduler:
    """The batch of one engine. `running` and `waiting` count sequences, as vLLM's gauges do."""

    def __init__(self, settings: Settings) -> None:
        self.running = 0
        self._limit = settings.max_num_seqs
        self._tokens_per_s = settings.prefill_tokens_per_s
        self._slowdown_s = settings.slowdown_s
        self._has_priority = settings.scheduling_policy == "priority"
        self._queue: list[_Turn] = []
        self._arrivals = 0
        self._prefill_free_s = 0.0

    @property
    def waiting(self) -> int:
        """The sequences of all requests in the queue."""
        return sum(turn.sequences for turn in self._queue)

    @property
    def slowdown_s(self) -> float:
        """The seconds that the batch adds to each step at present."""
        return self._slowdown_s * self.running

    async def enter(self, exchange: Exchange, sequences: int, priority: int = 0) -> None:
        """Waits until the batch has room. Raises ExchangeEndedError if the client leaves first.

        Each entry needs one `leave`. A request with more sequences than the batch has room for runs
        alone. With the priority policy the smallest `priority` enters first; those in the batch
        stay.
        """
        if not self._queue and self._has_room(sequences):
            self.running += sequences
            return
        self._arrivals += 1
        turn = _Turn(
            priority=priority if self._has_priority else 0,
            arrival=self._arrivals,
            sequences=sequences,
            waiter=asyncio.get_running_loop().create_future(),
        )
        heappush(self._queue, turn)
        try:
            await exchange.wait_for(turn.waiter)
        except ExchangeEndedError:
            if turn.is_admitted:
                self.leave(sequences)
            else:
                self._queue.remove(turn)
                heapify(self._queue)
            raise

    def leave(self, sequences: int) -> None:
        """The request is out of the batch; those at the head of the queue enter."""
        self.running -= sequences
        while self._queue and self._has_room(self._queue[0].sequences):
            turn = heappop(self._queue)
            self.running += turn.sequences
            turn.is_admitted = True
            if not turn.waiter.done():
                turn.waiter.set_result(None)

    def prefill_s(self, tokens: int) -> float:
        """The seconds until a prompt is computed, after the prompts before it.

        `tokens` are those that the prefix cache lacks.
        """
        if self._tokens_per_s is None:
            return 0.0
        now_s = asyncio.get_running_loop().time()
        begin_s = max(now_s, self._prefill_free_s)
        self._prefill_free_s = begin_s + tokens / self._tokens_per_s
        return self._prefill_free_s - now_s

    def _has_room(self, sequences: int) -> bool:
        return self._limit is None or self.running == 0 or self.running + sequences <= self._limit
