"""One reservation in two: what slices hold of it, and the rest, which the store holds. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from headgate.core.policy import OnOutage
from ratelimit.store.protocol import MAX_COUNT, Decision, Demand, Reservation, Reserved
from ratelimit.store.slices import Hold, Part


def is_sliced(demand: Demand) -> bool:
    """Whether it is held in slices: not of a limit that refuses nobody, nor of a bucket."""
    return demand.slice > 0 and demand.enforced and not demand.drain and demand.amount > 0


def drains_of(reservation: Reservation) -> dict[str, int]:
    """The drains of its buckets, as `Store.peek` takes them."""
    return {one.key: one.drain for one in reservation.demands if one.drain}


def rest_of(reservation: Reservation) -> Reservation:
    """What the store is asked to hold."""
    demands = tuple(one for one in reservation.demands if not is_sliced(one))
    return replace(reservation, demands=demands)


def merged(reservation: Reservation, parts: Iterable[Part], rest: Reserved) -> Reserved:
    """The store's answer about the rest, as one about the whole reservation."""
    here = {part.demand.key: part.pool.used for part in parts}
    demands = len(reservation.demands)
    places = [
        index
        for index, one in enumerate(reservation.asked)
        if index >= demands or one.key not in here
    ]
    used = dict(zip(places, rest.used, strict=True))
    return replace(
        rest,
        used=tuple(
            used[index] if index in used else here[one.key]
            for index, one in enumerate(reservation.asked)
        ),
        refused=tuple(places[index] for index in rest.refused),
        exceeded=tuple(places[index] for index in rest.exceeded),
    )


def refusal(reservation: Reservation, used: Sequence[int], lacking: Collection[str]) -> Reserved:
    """Refused for the counters in `lacking`, and for whatever else has not enough left."""
    refused: list[int] = []
    exceeded: list[int] = []
    for index, (one, count) in enumerate(zip(reservation.asked, used, strict=True)):
        is_counter = isinstance(one, Demand)
        amount = one.amount if isinstance(one, Demand) else 1
        if (is_counter and one.key in lacking) or count + amount > one.limit:
            (refused if one.enforced else exceeded).append(index)
    return Reserved(Decision.REFUSED, tuple(used), tuple(refused), tuple(exceeded))


def taken_over(tenant: str, name: str, hold: Hold, now_s: float) -> Reservation:
    """What the store is asked to hold, as `name`, in the place of a replica that ends.

    Above the limit if need be: it has been admitted already.
    """
    demands = tuple(
        replace(part.demand, limit=MAX_COUNT, on_outage=OnOutage.CLOSED) for part in hold.parts
    )
    return Reservation(name, tenant, demands, (), hold.until_s - now_s, now_s)
