"""The functions that the access log hook needs from other rooms."""

from typing import Protocol

from headgate.core.settlement import Estimate, Usage


class SettleReservation(Protocol):
    """Settles a reservation once: the first settlement counts, later calls change nothing.

    Returns the outcome, a label of headgate_settlements. It must bound its own time. It may raise:
    see `AccessLogService` in service.py.
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
