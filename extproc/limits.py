"""The caller's view of its own limits and usage (GET /v1/headgate/limits and /usage)."""

from typing import Protocol
from urllib.parse import parse_qsl

from headgate.core.errors import ApiError, Refusal
from headgate.core.policy import Caller, Tenant

LIMITS_UNAVAILABLE = ApiError(
    Refusal.UNAVAILABLE, "The state of your limits is not available right now. Try again."
)


class LimitsOf(Protocol):
    """The answer's JSON: the caller's limits or usage, or only what requests to `model` meet.

    None if the store does not answer. It bounds its own time and does not raise.
    """

    async def __call__(
        self, tenant: Tenant, caller: Caller, model: str | None, /
    ) -> bytes | None: ...


def asked_model(path: str) -> str | None:
    """The query's `model`, the last if there are several; None without one."""
    query = path.partition("?")[2]
    return dict(parse_qsl(query, keep_blank_values=True)).get("model")
