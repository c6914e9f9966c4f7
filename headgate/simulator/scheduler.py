"""The engine's batch: who may enter it, when a prompt is computed, and how fast tokens come.

Three of vLLM's properties decide how long a client waits under load. The batch has room for
`--max-num-seqs` sequences, first come, first served. Prompts share the engine. Every sequence in
the batch makes each step longer.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from headgate.simulator.exchange import Exchange, ExchangeEndedError
from headgate.simulator.settings import Settings


@dataclass(slots=True)
class _Turn:
    """One request in the queue."""

    sequences: int
    waiter: asyncio.Future[None]
    is_admitted: bool = False


class Scheduler:
    """The batch of one engine. `running` and `waiting` count sequences, as vLLM's gauges do."""

    def __init__(self, settings: Settings) -> None:
        self.running = 0
        self._limit = settings.max_num_seqs
        self._tokens_per_s = settings.prefill_tokens_per_s
        self._slowdown_s = settings.slowdown_s
        self._queue: deque[_Turn] = deque()
        self._prefill_free_s = 0.0

    @property
    def waiting(self) -> int:
        """The sequences of all requests in the queue."""
        return sum(turn.sequences for turn in self._queue)

    @property
    def slowdown_s(self) -> float:
        """The seconds that the batch adds to each step at present."""
        return self._slowdown_s * self.running

    async def enter(self, exchange: Exchange, sequences: int) -> None:
        """Waits until the batch has room. Raises ExchangeEndedError if the client leaves first.

        Each entry needs one `leave`. A request with more sequences than the batch has room for runs
        alone.
        """
        if not self._queue and self._has_room(sequences):
            self.running += sequences
            return
        turn = _Turn(sequences, asyncio.get_running_loop().create_future())
        self._queue.append(turn)
        try:
            await exchange.wait_for(turn.waiter)
        except ExchangeEndedError:
            if turn.is_admitted:
                self.leave(sequences)
            else:
                self._queue.remove(turn)
            raise

    def leave(self, sequences: int) -> None:
        """The request is out of the batch; those at the head of the queue enter."""
        self.running -= sequences
        while self._queue and self._has_room(self._queue[0].sequences):
            turn = self._queue.popleft()
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
