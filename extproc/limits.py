"""What ext_proc needs to answer what is left of a caller's limits (GET /v1/headgate/limits)."""

from typing import Protocol
from urllib.parse import parse_qsl

from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Caller, Tenant

LIMITS_UNAVAILABLE = ApiError(
    Refusal.UNAVAILABLE, "What is left of your limits cannot be told right now; try again."
)


class LimitsOf(Protocol):
    """The answer's JSON: the caller's limits, or those that requests to `model` meet.

    None when it cannot be told now. It bounds its own time and does not raise.
    """

    async def __call__(
        self, tenant: Tenant, caller: Caller, model: str | None, /
    ) -> bytes | None: ...


def asked_model(path: str) -> str | None:
    """The query's `model`, the last of several; None where it names none."""
    query = path.partition("?")[2]
    return dict(parse_qsl(query, keep_blank_values=True)).get("model")
