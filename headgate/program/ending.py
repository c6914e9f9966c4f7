"""How the program ends: the first signal drains, the second ends the drain, the third kills."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

_POLL_S = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Ending:
    """The state of the end: the signals so far, and the time that requests in flight get.

    `begun` is set by the first signal and `hurry` by the second.
    """

    drain_s: float
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def is_admitting(self) -> bool:
        """Whether new requests may come in."""
        return not self.begun.is_set()

    def ask(self) -> None:
        """A signal has come."""
        (self.hurry if self.begun.is_set() else self.begun).set()

    async def wait_while(self, is_busy: Callable[[], bool]) -> None:
        """Returns once nothing is busy, the time is over, or the second signal has come."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.drain_s
        while is_busy() and not self.hurry.is_set() and loop.time() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)


def on_signals(drain_s: float) -> Ending:
    """From now on SIGTERM, SIGINT and SIGHUP ask for the end, in place of ending the program.

    A closed terminal sends SIGHUP; under `nohup`, which ignores it, it stays ignored. The third
    signal has its usual effect.
    """
    ending = Ending(drain_s)
    loop = asyncio.get_running_loop()
    taken = [number for number in _SIGNALS if _is_ours(number)]

    def ask() -> None:
        ending.ask()
        if ending.hurry.is_set():
            for number in taken:
                loop.remove_signal_handler(number)

    for number in taken:
        loop.add_signal_handler(number, ask)
    return ending


def _is_ours(number: signal.Signals) -> bool:
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
