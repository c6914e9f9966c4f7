"""Looks at the counters of limits with thresholds, and decides which are new.

A counter is read in the store of the limits, which is what callers see, too. The counter of a whole
tenant is read at each look. That of a user, a key or a model is read once a record has met it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from headgate.core.key_ring import KeyRing
from headgate.core.notices import FORECAST
from headgate.core.policy import CompiledPolicy, Per, Slots
from headgate.database.connection import Connection
from headgate.ledger.notices import outbox
from headgate.ledger.notices.counters import Counter, counters_of, tenants_with_each
from headgate.ledger.notices.digest import digest_of
from headgate.ledger.notices.thresholds import forecast, passed
from headgate.ledger.notices.values import DIGEST, Decided
from ratelimit.smooth import drain_of, used_units
from ratelimit.store.protocol import PeekQuery, Store
from ratelimit.windows import window

MOST_SUBJECTS = 5_000
_MOST_COUNTERS = 200
"""Those of one question to the store, which answers callers between two of them."""


async def decide(
    connection: Connection, policy: CompiledPolicy, keys: KeyRing, store: Store, now_s: float
) -> bool:
    """One look; returns whether there is more to look at. Another program's look is as good.

    Raises StoreError; then whom records have met is kept for the next look.
    """
    async with connection.transaction():
        if not await outbox.is_alone(connection):
            return False
        await outbox.keep_tenants(connection, tenants_with_each(policy))
        subjects = await outbox.take_subjects(connection, MOST_SUBJECTS)
        decided: list[Decided] = []
        for tenant, counters in counters_of(policy, subjects, keys, now_s).items():
            used = await _used(store, tenant, counters, now_s)
            for counter in counters:
                fullest = max(used_units(counter.limit, used[key]) for key in counter.keys)
                decided += _of_counter(counter, fullest, policy.currency, now_s)
        ways = channels_of(policy)
        await outbox.put(connection, decided, ways)
        await _digests(connection, policy, ways, now_s)
        return len(subjects) == MOST_SUBJECTS


def channels_of(policy: CompiledPolicy) -> dict[str, list[str]]:
    """By tenant the channels on which its notices go out."""
    channels = policy.channels
    shared = ["webhook"] if channels.webhook else []
    shared += ["slack"] if channels.slack else []
    return {
        tenant.name: [*shared, *(["mail"] if channels.mail and tenant.notices.to else [])]
        for tenant in policy.tenants.values()
    }


async def _used(
    store: Store, tenant: str, counters: Sequence[Counter], now_s: float
) -> Mapping[str, int]:
    limits = {key: counter.limit for counter in counters for key in counter.keys}
    used: dict[str, int] = {}
    for first in range(0, len(limits), _MOST_COUNTERS):
        some = list(limits)[first : first + _MOST_COUNTERS]
        leases = [key for key in some if isinstance(limits[key].shape, Slots)]
        query = PeekQuery(
            tenant=tenant,
            now_s=now_s,
            counters=[key for key in some if key not in leases],
            leases=leases,
            drains={key: drain for key in some if (drain := drain_of(limits[key]))},
        )
        used |= await store.peek(query)
    return used


def _of_counter(
    counter: Counter, used: int, currency: str | None, now_s: float
) -> Iterator[Decided]:
    limit, span = counter.limit, counter.window
    for threshold in passed(limit.notify, used, limit.capacity, span, now_s):
        yield Decided(
            tenant=counter.tenant,
            limit_id=limit.id,
            most=limit.capacity,
            threshold=threshold,
            count=limit.count,
            per=counter.per,
            begin_s=span.start_s,
            end_s=span.end_s,
            used=used,
            user=counter.user,
            key=counter.key_id,
            model=counter.model,
            forecast=forecast(used, span, now_s) if threshold == FORECAST else None,
            currency=currency,
        )


async def _digests(
    connection: Connection, policy: CompiledPolicy, ways: Mapping[str, Sequence[str]], now_s: float
) -> None:
    """The digest of a period is decided once the next one has begun."""
    for tenant in policy.tenants.values():
        if tenant.notices.digest is None:
            continue
        per = Per(tenant.notices.digest)
        this = window(per, tenant.calendar, now_s)
        last = window(per, tenant.calendar, this.start_s - 1)
        begin, end = (
            datetime.fromtimestamp(at, tenant.calendar.timezone)
            for at in (last.start_s, last.end_s)
        )
        new = Decided(
            tenant=tenant.name, limit_id="", most=0, threshold=DIGEST, count="requests", per=per,
            begin_s=last.start_s, end_s=last.end_s, used=0, currency=policy.currency,
        )  # fmt: skip
        for id in await outbox.put(connection, [new], ways):
            await outbox.put_digest(connection, id, await digest_of(connection, tenant, begin, end))
