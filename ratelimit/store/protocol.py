"""The store of the limits: its operations and their plain values.

Those of each request are msgspec's structs, made sooner. `tests/contract` runs on each store.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import astuple

from headgate.core.policy import OnOutage
from ratelimit.fair.tags import FairDemand, FairStart
from ratelimit.store.hits import CountedHits, Hit

MAX_COUNT = 2**53
"""The largest amount, limit and counter: numbers in Redis scripts are doubles."""

SETTLED_KEPT_S = 120
"""How long a settled reservation is remembered, so that it cannot be settled or reserved again."""

DRAINED_KEPT_S = 60
"""How long a bucket is kept once it has drained, for replicas whose clocks are late."""

TenantKey = tuple[str, str]
"""The tenant, then the name of a counter, a lease or a reservation within it."""


class StoreError(Exception):
    """The store did not answer in time, or answered with an error. Its text is one line."""


class StoreAwayError(StoreError):
    """The store was not asked, because an outage is known: it cannot hold anything."""


class Spent(Struct, frozen=True, gc=False):
    """The real use of a request, nothing if it is given back as a whole.

    `input` counts the prompt tokens that no prefix cache had, `seconds` the length of audio.
    """

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    seconds: int = 0

    @property
    def tokens(self) -> int:
        return self.input + self.cached + self.output


class Weights(Struct, frozen=True, gc=False):
    """How much each thing that a request used adds to a counter, in thousandths."""

    request: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    second: int = 0

    def amount(self, spent: Spent) -> int:
        """The amount that `spent` adds to the counter: rounded up, at most MAX_COUNT."""
        thousandths = (
            self.request * spent.requests
            + self.input * spent.input
            + self.cached * spent.cached
            + self.output * spent.output
            + self.second * spent.seconds
        )
        return min(MAX_COUNT, -(-thousandths // 1000))

    def held(self, tokens: int, prompt_tokens: int | None, seconds: int) -> int:
        """The most that an estimate allows; of an unknown prompt, all tokens are the dearest."""
        prompt, output = max(self.input, self.cached), self.output
        thousandths = self.request + self.second * seconds
        if prompt_tokens is None:
            prompt, prompt_tokens = max(prompt, output), tokens
        thousandths += prompt * prompt_tokens + output * (tokens - prompt_tokens)
        return min(MAX_COUNT, -(-thousandths // 1000))

    def times(self, factor: int) -> "Weights":
        """The same weights in finer units of the counter."""
        return self if factor == 1 else Weights(*[kind * factor for kind in astuple(self)])


REQUESTS = Weights(request=1000)
TOKENS = Weights(input=1000, cached=1000, output=1000)


class Demand(Struct, frozen=True, kw_only=True, gc=False):
    """An amount asked of one counter: granted while used + amount <= limit.

    `key` names the counter within its tenant and identifies its window, so `expires_at_s` (seconds
    since the epoch) is only for cleaning up. `amount` and `limit` lie in 0..MAX_COUNT. `weights`
    turn what was really used into the amount that replaces the held one.

    A demand that is not `enforced` is granted above its limit too, up to MAX_COUNT, and in an
    outage whatever its `on_outage` says.

    A counter with a `drain` is a bucket without a window. In each millisecond, `drain` of what is
    used drains, down to 0. A settlement gives back only what cannot have drained since. It adds
    in full what was used beyond the amount. `expires_at_s` is when a bucket that is full after
    this amount will have drained.

    `slice` is how much of an enforced counter without a drain a replica may reserve at a time, to
    decide by itself. It is 0 where the shared store counts each request.
    """

    weights: Weights
    key: str
    amount: int
    limit: int
    expires_at_s: int
    enforced: bool = True
    on_outage: OnOutage = OnOutage.CLOSED
    drain: int = 0
    slice: int = 0


class Lease(Struct, frozen=True, kw_only=True, gc=False):
    """One of `limit` slots, which is free again on settlement or after `lease_s`.

    A lease that is not `enforced` is granted when all slots are taken too, and in an outage.
    """

    key: str
    limit: int
    lease_s: float
    enforced: bool = True
    on_outage: OnOutage = OnOutage.CLOSED


class Reservation(Struct, frozen=True, kw_only=True, gc=False):
    """Everything that one request asks for: granted as a whole or not at all.

    Keys are distinct, those of leases too. For `hold_s` it can be settled; if it never is, its
    amounts stay charged. `fair` is its work in a queue, None if no order is kept.
    """

    id: str
    tenant: str
    demands: tuple[Demand, ...]
    leases: tuple[Lease, ...]
    hold_s: float
    now_s: float
    fair: FairDemand | None = None

    @property
    def asked(self) -> tuple[Demand | Lease, ...]:
        """Its demands, then its leases."""
        return (*self.demands, *self.leases)


class ReserveDecision(StrEnum):
    """The answer to a reservation."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    REPLAYED = "replayed"
    """The id has been settled already: nothing is granted for it a second time."""


class Reserved(Struct, frozen=True, kw_only=True, gc=False):
    """A decision, and by key the count of each demand and lease after it.

    `refused` holds the keys of those without enough room. `exceeded` holds those that had no room
    either but are not enforced; it is empty for an id that is already held. Both are in the order
    of `Reservation.asked`. All three are empty for a replay.

    `degraded` means decided without the store, by each limit's `on_outage`: then `exceeded` is
    empty. An admitted one is not `held` if nothing anywhere holds it: there is nothing to settle.

    `held_by` names the replica that holds it in its slices: the settlement needs it (`SettleHeld`).
    `start` is the tag of its `fair`; None without one, and where nothing counts the work.
    """

    decision: ReserveDecision
    used: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    exceeded: tuple[str, ...] = ()
    degraded: bool = False
    held: bool = True
    held_by: str = ""
    start: int | None = None


class SettleOutcome(StrEnum):
    """The effect of a settlement."""

    SETTLED = "settled"
    DUPLICATE = "duplicate"
    """It had been settled before; nothing has changed."""
    UNKNOWN = "unknown"
    """No such reservation (refused, never made, or held too long); nothing has changed."""
    DEFERRED = "deferred"
    """There is an outage: the settlement is kept, and made when the store is back."""
    FORWARDED = "forwarded"
    """Another replica holds the request in a slice: the settlement is sent to it."""


class Settled(Struct, frozen=True, gc=False):
    """An outcome and, if settled, the counts of its counters and leases now, by key.

    A counter whose window is over may be missing; a drained bucket is at 0. `start`: as reserved.
    """

    outcome: SettleOutcome
    used: Mapping[str, int]
    start: FairStart | None = None


class PeekQuery(Struct, frozen=True, kw_only=True, gc=False):
    """Asks for the counts of these counters and leases of a tenant, which share no key.

    The drains of those counters that are buckets are in `drains`, by key.
    """

    tenant: str
    now_s: float
    counters: Sequence[str] = ()
    leases: Sequence[str] = ()
    drains: Mapping[str, int] = field(default_factory=dict)


def to_ms(seconds: float) -> int:
    """Times and spans as stores calculate with them: whole milliseconds."""
    return round(seconds * 1000)


class Store(Protocol):
    """Keeps counters and leases. Every method is one atomic step; all raise StoreError."""

    async def reserve(self, reservation: Reservation) -> Reserved:
        """Grants all demands and leases or, without changing anything, none.

        Those that are not enforced refuse nothing. An id that is already held is ADMITTED again
        and charged nothing more.
        """
        ...

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        """Replaces the held amounts with the actual ones, in the very counters that held them.

        The first settlement of an id wins. Use beyond the held amount is recorded, above the
        limit too; no counter falls below 0. Leases end.
        """
        ...

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> CountedHits:
        """Adds all hits or, if the call is refused, none but quotas that alone refuse it.

        Only the counters are kept.

        Hits may share a key: each of them meets what the earlier ones added. No counter falls
        below 0 or rises above MAX_COUNT.
        """
        ...

    async def peek(self, query: PeekQuery) -> Mapping[str, int]:
        """The count of each of them now, by key. Changes nothing."""
        ...

    async def ping(self) -> None:
        """Returns when the store can be used."""
        ...

    async def close(self) -> None:
        """Ends its connections."""
        ...
