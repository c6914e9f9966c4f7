"""The functions of other rooms that the access log calls."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from accesslog.reached import Reached
from headgate.core.settlement import Estimate, Usage


class SettleReservation(Protocol):
    """Settles a reservation once: the first settlement counts, later calls change nothing.

    Returns the outcome, a label of headgate_settlements. It must bound its own time. It may raise:
    see `AccessLogService`.
    """

    async def __call__(
        self, reservation: str, tenant: str, usage: Usage, estimate: Estimate, held_by: str, /
    ) -> str: ...


class KnownOutcome(Protocol):
    """The outcome of a settlement that would change nothing, as this process knows; else None."""

    def __call__(self, reservation: str, tenant: str, /) -> str | None: ...


class LearnUsage(Protocol):
    """Learns the tokens that a request with `text_bytes` of text really used. It does not raise.

    `subject` is the tenant, the user and the model.
    """

    def __call__(
        self,
        subject: tuple[str, str, str],
        text_bytes: int,
        prompt_tokens: int,
        completion_tokens: int,
        /,
    ) -> None: ...


class WithinLimit(Protocol):
    """Counts a request without a known key against its address; False beyond the limit."""

    def __call__(self, address: str, /) -> bool: ...


EndPlaced: TypeAlias = Callable[[str, float], None]
"""Tells that a request has ended: at a pod that Headgate chose, and when it began (Unix time)."""


def not_placed(_pod: str, _began_s: float) -> None:
    """Nobody counts the requests of pods."""


TellReached: TypeAlias = Callable[[Reached], None]
"""Tells which version of a model a request has reached, or could not reach."""


def not_told(_reached: Reached) -> None:
    """Nobody asks which versions answer."""
