"""In any order of calls no limit is passed, nothing is lost, nothing is negative."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ratelimit.store.protocol import (
    MAX_COUNT,
    Reservation,
    ReserveDecision,
    SettleOutcome,
    Store,
)
from tests.ratelimit.builders import NOW_S, Shop, lease, peek, requests, smooth, spent, tokens

DAY_LIMIT = 100
MINUTE_LIMIT = 60
REQUEST_LIMIT = 4
SLOTS = 3
SHADOW_LIMIT = 50
BURST = 80
RATE = 7
"""What refills of the burst in a second."""
LEASE_S = 10.0
COUNTERS = ("day", "minute", "requests", "shadow", "smooth")

ids = st.sampled_from(["a", "b", "c", "d", "e", "f"])


@dataclass(frozen=True)
class Ask:
    """Reserves `amount` tokens under `id`."""

    id: str
    amount: int

    def reservation(self, shop: Shop, now_s: float) -> Reservation:
        return shop.ask(
            tokens(self.amount, DAY_LIMIT, "day"),
            tokens(min(self.amount, MINUTE_LIMIT), MINUTE_LIMIT, "minute"),
            requests(REQUEST_LIMIT),
            replace(tokens(self.amount, SHADOW_LIMIT, "shadow"), enforced=False),
            smooth(min(self.amount, BURST), BURST, RATE),
            lease(SLOTS, lease_s=LEASE_S),
            id=self.id,
            now_s=now_s,
        )


@dataclass(frozen=True)
class Settle:
    """Settles `id` at `used` tokens, as a request or as a refund."""

    id: str
    used: int
    charged: bool


@dataclass(frozen=True)
class Wait:
    """Lets time pass."""

    seconds: float


asks = st.builds(Ask, ids, st.integers(1, 120))
settles = st.builds(Settle, ids, st.integers(0, 150), st.booleans())
waits = st.builds(Wait, st.sampled_from([1.0, LEASE_S / 2, LEASE_S]))


@dataclass
class Model:
    """The rules, written down as plainly as possible."""

    now_s: float = NOW_S
    day: int = 0
    minute: int = 0
    requests: int = 0
    shadow: int = 0
    drops: int = 0
    """Of the bucket, in thousandths of tokens."""
    slots: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    held_at_s: dict[str, float] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.drops = max(0, self.drops - int(RATE * 1000 * seconds))

    def in_use_by_key(self) -> dict[str, int]:
        return dict(zip((*COUNTERS, "slots"), self.in_use(), strict=True))

    def in_use(self) -> tuple[int, ...]:
        busy = sum(end_s > self.now_s for end_s in self.slots.values())
        return self.day, self.minute, self.requests, self.shadow, self.drops, busy

    def ask(self, ask: Ask) -> ReserveDecision:
        if ask.id in self.settled:
            return ReserveDecision.REPLAYED
        if ask.id in self.held:
            return ReserveDecision.ADMITTED
        in_minute = min(ask.amount, MINUTE_LIMIT)
        in_bucket = min(ask.amount, BURST) * 1000
        asked = (ask.amount, in_minute, 1, 0, in_bucket, 1)
        limits = (DAY_LIMIT, MINUTE_LIMIT, REQUEST_LIMIT, MAX_COUNT, BURST * 1000, SLOTS)
        wanted = (used + amount for used, amount in zip(self.in_use(), asked, strict=True))
        if any(want > limit for want, limit in zip(wanted, limits, strict=True)):
            return ReserveDecision.REFUSED
        self.held[ask.id] = ask.amount
        self.day += ask.amount
        self.minute += in_minute
        self.requests += 1
        self.shadow += ask.amount
        self.drops += in_bucket
        self.held_at_s[ask.id] = self.now_s
        self.slots[ask.id] = self.now_s + LEASE_S
        return ReserveDecision.ADMITTED

    def settle(self, settle: Settle) -> SettleOutcome:
        if settle.id in self.settled:
            return SettleOutcome.DUPLICATE
        if settle.id not in self.held:
            return SettleOutcome.UNKNOWN
        amount = self.held.pop(settle.id)
        self.settled.add(settle.id)
        self.day = max(0, self.day + settle.used - amount)
        self.minute = max(0, self.minute + settle.used - min(amount, MINUTE_LIMIT))
        self.requests += settle.charged - 1
        self.shadow = max(0, self.shadow + settle.used - amount)
        self.drops = max(0, self.drops + self.more_in_bucket(settle, min(amount, BURST)))
        del self.slots[settle.id]
        return SettleOutcome.SETTLED

    def more_in_bucket(self, settle: Settle, held: int) -> int:
        """In drops. The part that may have drained since is not given back."""
        if settle.used >= held:
            return (settle.used - held) * 1000
        drained = int(RATE * 1000 * (self.now_s - self.held_at_s[settle.id]))
        remains, kept = held * 1000 - drained, settle.used * 1000 - drained
        return max(0, kept) - max(0, remains)


async def in_use(store: Store, shop: Shop, now_s: float) -> tuple[int, ...]:
    return await peek(store, shop.tenant, COUNTERS, ["slots"], now_s, drains={"smooth": RATE})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(asks, settles, waits), max_size=25))
async def test_any_sequence_does_what_the_rules_say(
    store: Store, steps: list[Ask | Settle | Wait]
) -> None:
    shop, model = Shop(), Model()
    for step in steps:
        match step:
            case Ask():
                answer = await store.reserve(step.reservation(shop, model.now_s))
                assert answer.decision is model.ask(step)
                replayed = answer.decision is ReserveDecision.REPLAYED
                assert answer.used == ({} if replayed else model.in_use_by_key())
            case Settle():
                settled = await store.settle(
                    step.id, shop.tenant, spent(step.used, int(step.charged)), model.now_s
                )
                assert settled.outcome is model.settle(step)
            case Wait():
                model.wait(step.seconds)
        assert await in_use(store, shop, model.now_s) == model.in_use()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.lists(asks, min_size=1, max_size=20),
    steps=st.lists(st.one_of(asks, settles), max_size=40),
)
async def test_no_interleaving_passes_a_limit_or_loses_a_token(
    store: Store, first: list[Ask], steps: list[Ask | Settle]
) -> None:
    """All steps at once; whoever wins, the numbers that were answered add up."""
    shop = Shop()
    charged: dict[str, Settle] = {}

    async def run(step: Ask | Settle) -> None:
        if isinstance(step, Ask):
            answer = await store.reserve(step.reservation(shop, NOW_S))
            if answer.decision is ReserveDecision.REFUSED:
                assert answer.refused
            return
        used = min(step.used, 1)  # never more than was held: a limit that is passed was overdrawn
        settled = await store.settle(step.id, shop.tenant, spent(used, int(step.charged)), NOW_S)
        assert all(count >= 0 for count in settled.used.values())
        if settled.outcome is SettleOutcome.SETTLED:
            assert step.id not in charged
            charged[step.id] = Settle(step.id, used, step.charged)

    await asyncio.gather(*(run(step) for step in [*first, *steps]))
    day, minute, counted, _, drops, slots = await in_use(store, shop, NOW_S)
    assert day <= DAY_LIMIT
    assert drops <= BURST * 1000
    assert minute <= MINUTE_LIMIT
    assert counted <= REQUEST_LIMIT
    assert slots <= SLOTS

    for name in ("a", "b", "c", "d", "e", "f"):
        await run(Settle(name, 1, True))
    day, minute, counted, shadow, drops, slots = await in_use(store, shop, NOW_S)
    assert day == minute == shadow == sum(settle.used for settle in charged.values())
    assert drops == day * 1000
    assert counted == sum(settle.charged for settle in charged.values())
    assert slots == 0


async def test_no_client_count_admits_more_than_the_limit_while_others_settle(
    store: Store,
) -> None:
    """Tokens in flight and tokens used together never pass the limit when estimates hold."""
    shop = Shop()
    used = 0

    async def ask_and_settle(number: int) -> None:
        nonlocal used
        name = f"r{number}"
        answer = await store.reserve(shop.ask(tokens(10, 500), lease(20, lease_s=60), id=name))
        if answer.decision is ReserveDecision.ADMITTED:
            assert answer.used["tokens"] <= 500
            assert answer.used["slots"] <= 20
            settled = await store.settle(name, shop.tenant, spent(7, 1), NOW_S)
            assert settled.outcome is SettleOutcome.SETTLED
            used += 7

    for _ in range(3):
        await asyncio.gather(*(ask_and_settle(number) for number in range(300)))
    assert await peek(store, shop.tenant, ["tokens"], ["slots"], NOW_S) == (used, 0)
    assert used <= 500
