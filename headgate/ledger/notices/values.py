"""A notice, as it is decided and as it goes out. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headgate.core.notices import Threshold

DIGEST = "digest"
"""What stands in place of the threshold in a digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A passed threshold, or a digest. Times are in seconds, cost is in nanos.

    `user`, `key` and `model` are empty where the counter counts all of them.
    """

    tenant: str
    limit_id: str
    most: int
    threshold: Threshold
    count: str
    per: str
    begin_s: float
    end_s: float
    used: int
    user: str = ""
    key: str = ""
    model: str = ""
    forecast: int | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A decided notice. `id` is its idempotency key.

    `user` has the name that the person has now, which may be a pseudonym.
    """

    id: str
    decided_at: datetime
    tenant: str
    limit_id: str
    most: int
    threshold: Threshold
    user: str | None
    key: str
    model: str
    count: str
    per: str
    begin_at: datetime
    end_at: datetime
    used: int
    forecast: int | None
    currency: str | None
    digest: Mapping[str, Any] | None = None
