"""Amounts that a call adds to counters for good, and the counts after it. Plain values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """An amount that one call adds to a counter for good: there is no settlement.

    `amount` lies in -MAX_COUNT..MAX_COUNT: below 0 it gives back, and 0 only looks. A hit is
    refused where used + amount > limit, and a look where used >= limit; a `limit` of None refuses
    nothing. Key and `expires_at_s` are as in `Demand`.

    A `quota` alone refuses nothing: only if no quota of the call has room is the call refused. Even
    then the quotas are counted, as what they count has happened.
    """

    key: str
    amount: int
    limit: int | None
    expires_at_s: int
    quota: bool = False


@dataclass(frozen=True, slots=True)
class CountedHits:
    """The count after each hit, in their order; before them where the call is refused.

    `refused` holds the indexes of the hits that refuse it. Then nothing has changed, except that
    quotas are counted if they alone refuse it. Not by key, as several hits of a call may have one
    key.
    """

    used: tuple[int, ...]
    refused: tuple[int, ...] = ()
