"""The values of a repricing. Money is in nanos (1e-9 of the currency), so sums are exact."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


class RepricingError(ValueError):
    """A repricing that cannot be made or shown; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledRecord:
    """The fields from which a price follows, and the charge that was made.

    `base` is the model that ran it, and `version` the deployment of it, None if that is not known.
    `cached` and `reasoning` are parts of `prompt` and `completion`. `source` is that of its charge.
    """

    tenant: str
    person: str
    model: str
    base: str
    version: str | None
    ended_at: datetime
    source: str
    is_from_cache: bool
    prompt: int
    cached: int
    completion: int
    reasoning: int
    audio_seconds: int | None
    charged_version: str
    charged_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepricedLine:
    """The requests of one user of a tenant, of one model and one pair of price versions.

    `person` is the id of the user. A version is empty where no prices were in force.
    """

    tenant: str
    person: str
    model: str
    charged_version: str
    new_version: str
    requests: int
    charged_nanos: int
    new_nanos: int

    @property
    def difference_nanos(self) -> int:
        """The rise of the cost by the new prices; below 0 it falls."""
        return self.new_nanos - self.charged_nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class Repricing:
    """A month by another price book. It is kept under its name and never changes.

    `tenant` is None for all tenants. `made_by` is the id of a person. `prices` are those of each
    price version in the lines, as decimal text by kind.
    """

    name: str
    month: str
    begin: datetime
    end: datetime
    tenant: str | None
    currency: str
    made_at: datetime
    made_by: str
    lines: tuple[RepricedLine, ...]
    prices: Mapping[str, Mapping[str, str]] = field(hash=False)
