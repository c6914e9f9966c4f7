"""One reservation in two: what slices hold of it, and the rest, which the store holds. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from headgate.core.policy import OnOutage
from ratelimit.store.protocol import MAX_COUNT, Decision, Demand, Peek, Reservation, Reserved
from ratelimit.store.slices.pool import Hold, Part


def is_sliced(demand: Demand) -> bool:
    """Whether it is held in slices: not of a limit that refuses nobody, nor of a bucket."""
    return demand.slice > 0 and demand.enforced and not demand.drain and demand.amount > 0


def peek_of(reservation: Reservation, counters: Sequence[str]) -> Peek:
    """The question what is in use of these of its counters, and of all of its leases."""
    return Peek(
        tenant=reservation.tenant,
        now_s=reservation.now_s,
        counters=counters,
        leases=[lease.key for lease in reservation.leases],
        drains={demand.key: demand.drain for demand in reservation.demands if demand.drain},
    )


def rest_of(reservation: Reservation) -> Reservation:
    """What the store is asked to hold."""
    demands = tuple(one for one in reservation.demands if not is_sliced(one))
    return replace(reservation, demands=demands)


def merged(parts: Iterable[Part], rest: Reserved) -> Reserved:
    """The store's answer about the rest, as one about the whole reservation."""
    here = {part.demand.key: part.pool.used for part in parts}
    return replace(rest, used={**here, **rest.used})


def refusal(
    reservation: Reservation, used: Mapping[str, int], lacking: Collection[str]
) -> Reserved:
    """Refused for the counters in `lacking`, and for all others without enough room."""
    refused: list[str] = []
    exceeded: list[str] = []
    for asked in reservation.asked:
        amount = asked.amount if isinstance(asked, Demand) else 1
        if asked.key in lacking or used[asked.key] + amount > asked.limit:
            (refused if asked.enforced else exceeded).append(asked.key)
    return Reserved(
        decision=Decision.REFUSED, used=used, refused=tuple(refused), exceeded=tuple(exceeded)
    )


def taken_over(tenant: str, name: str, hold: Hold, now_s: float) -> Reservation:
    """What the store is asked to hold, as `name`, in the place of a replica that ends.

    Above the limit if need be: it has been admitted already.
    """
    demands = tuple(
        replace(part.demand, limit=MAX_COUNT, on_outage=OnOutage.CLOSED) for part in hold.parts
    )
    return Reservation(name, tenant, demands, (), hold.until_s - now_s, now_s)
