"""How the program ends: the first signal drains, the second ends the drain, the third kills."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

_POLL_S = 0.05
_STDIN = 0


@dataclass(slots=True)
class Ending:
    """The state of the end: the signals so far, and the time that requests in flight get.

    `begun` is set by the first signal and `hurry` by the second. `on_hangup` are called at a SIGHUP
    that does not ask for the end, and `on_user_signal` at SIGUSR1.
    """

    drain_s: float
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    on_hangup: list[Callable[[], None]] = field(default_factory=list)
    on_user_signal: list[Callable[[], object]] = field(default_factory=list)

    def is_admitting(self) -> bool:
        """Whether new requests may come in."""
        return not self.begun.is_set()

    def ask(self) -> None:
        """A signal has come."""
        (self.hurry if self.begun.is_set() else self.begun).set()

    def hang_up(self) -> None:
        """SIGHUP has come to a program without a terminal: it reads its files again."""
        for action in self.on_hangup:
            action()

    def signal_of_user(self) -> None:
        """SIGUSR1 has come: it changes the log level."""
        for action in self.on_user_signal:
            action()

    async def wait_while(self, is_busy: Callable[[], bool]) -> None:
        """Returns once nothing is busy, the time is over, or the second signal has come."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.drain_s
        while is_busy() and not self.hurry.is_set() and loop.time() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)


def on_signals(drain_s: float) -> Ending:
    """From now on SIGTERM and SIGINT ask for the end, in place of ending the program.

    So does SIGHUP of a program whose standard input is a terminal: a closed terminal sends it.
    Otherwise SIGHUP calls `on_hangup`, as logrotate and process managers expect. Under `nohup`,
    which ignores it, it stays ignored. The third signal has its usual effect.
    """
    ending = Ending(drain_s)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, ending.signal_of_user)
    taken = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        if _has_terminal():
            taken.append(signal.SIGHUP)
        else:
            loop.add_signal_handler(signal.SIGHUP, ending.hang_up)

    def ask() -> None:
        ending.ask()
        if ending.hurry.is_set():
            for number in taken:
                loop.remove_signal_handler(number)

    for number in taken:
        loop.add_signal_handler(number, ask)
    return ending


def _has_terminal() -> bool:
    try:
        return os.isatty(_STDIN)
    except OSError:  # closed
        return False
