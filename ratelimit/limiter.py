"""Is there budget left? Reserves for a request before it runs, settles what it really used.

It knows no transport: the rate-limit service and the access log both call it.
"""

from collections.abc import Callable, Mapping

from headgate.core.apis import WITH_PRIORITY
from headgate.core.clock import Clock
from headgate.core.key_ring import NO_KEYS, KeyRing, KeysUnavailableError, tenant_of
from headgate.core.pods import pods_of
from headgate.core.policy import Caller, CompiledPolicy, Tenant
from headgate.core.settlement import Charge, Estimate, Source, Usage, charge
from ratelimit.answers import (
    Admitted,
    LimitStatus,
    Reason,
    Refused,
    ReserveRequest,
    refusal_of,
    statuses_of,
)
from ratelimit.demand import Claim, Subject, claims_of, reservation_of, tokens_per_second
from ratelimit.fair.tags import FairDemand, Rates, VirtualTimes
from ratelimit.known import Known, KnownReservations, State
from ratelimit.store.concurrency import Turns
from ratelimit.store.protocol import (
    Reservation,
    Reserved,
    ReserveDecision,
    SettleOutcome,
    Spent,
    Store,
    StoreAwayError,
    StoreError,
)
from ratelimit.store.shared import SettleHeld

SettlementResult = Source | SettleOutcome
"""Where the charged numbers come from or, when nothing changed, why. Its values are those of the
metric headgate_settlements."""


_REPLAYED = Refused(Reason.REPLAYED, None, 1, ())
_UNCHANGED = {
    State.SETTLED: SettleOutcome.DUPLICATE,
    State.REFUSED: SettleOutcome.UNKNOWN,
}


class Limiter:
    """Decides by the policy that is in force at each call.

    It remembers the last `remembered` reservations that it decided. A second settlement of such a
    reservation, or one of a refused request, asks the store nothing. Most come within a second. For
    a forgotten reservation it asks the store, which knows.

    `settle_held` is how the store settles what a replica holds, if it can do that. `keys` add the
    limits of a key that was issued at run time. `virtual_times` are those of vLLM's queues; without
    them the limiter begins with none.
    """

    def __init__(
        self,
        store: Store,
        policy: Callable[[], CompiledPolicy],
        clock: Clock,
        *,
        remembered: int = 16_384,
        settle_held: SettleHeld | None = None,
        keys: KeyRing = NO_KEYS,
        virtual_times: VirtualTimes | None = None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._settle_held = settle_held
        self._keys = keys
        self._virtual_times = virtual_times or VirtualTimes(clock.monotonic_s)
        self._known = KnownReservations(remembered)
        self._settling = Turns()

    async def reserve(self, request: ReserveRequest) -> Admitted | Refused:
        """Holds the request in all limits that it meets, or in none. Raises StoreError.

        A tenant that the policy does not know is refused. A request that meets no limit is
        admitted. It asks the store only for its place in a queue, and goes on without an answer.
        """
        decided = await self._reserve(request)
        if self._known.has_ended(request.reservation):
            await self.give_back(request.reservation)
            return _REPLAYED
        return decided

    async def _reserve(self, request: ReserveRequest) -> Admitted | Refused:
        now_s = self._clock.now_s()
        tenant = self._tenant_of(request)
        if tenant is None:
            self._remember_new(request, State.REFUSED)
            return Refused(Reason.UNKNOWN_TENANT, None, 1, ())
        subject = Subject(request.tenant, request.user, request.key, request.model)
        claims = claims_of(tenant, subject, now_s, request.version, from_cache=request.from_cache)
        fair = None if tenant.weight is None else self._fair_demand(request, tenant.weight)
        if not claims and fair is None:
            return self._free(request, None)
        reservation = reservation_of(
            request.reservation,
            request.tenant,
            claims,
            request.tokens,
            now_s,
            prompt_tokens=request.prompt_tokens,
            audio_seconds=_audio_seconds(request, self._policy()),
            fair=fair,
        )
        self._remember_new(request, State.ASKED)
        try:
            reserved = await self._store.reserve(reservation)
        except StoreError as error:
            if not claims:
                return self._free(request, fair)
            if isinstance(error, StoreAwayError):
                self._remember_new(request, State.REFUSED)
            raise
        if reserved.decision is ReserveDecision.REPLAYED:
            return _REPLAYED
        return self._decided(request, reservation, claims, reserved)

    def _free(self, request: ReserveRequest, fair: FairDemand | None) -> Admitted:
        """Admits a request that meets no limit, and that no store knows."""
        self._remember_new(request, State.FREE)
        return Admitted((), priority=_priority(request, fair, None))

    def _decided(
        self,
        request: ReserveRequest,
        reservation: Reservation,
        claims: tuple[Claim, ...],
        reserved: Reserved,
    ) -> Admitted | Refused:
        """The store's decision in terms of the limits, which is remembered."""
        met = {claim.key: claim for claim in claims}
        statuses = statuses_of(reservation, met, reserved, reservation.now_s)
        self._known.remember(
            request.reservation,
            Known(tenant=request.tenant, state=_state_of(reserved), statuses=statuses),
        )
        if reserved.decision is ReserveDecision.REFUSED:
            return refusal_of(reservation, met, reserved, statuses)
        exceeded = tuple([met[key].limit for key in reserved.exceeded]) if reserved.exceeded else ()
        holds_slot = bool(reservation.leases)
        priority = _priority(request, reservation.fair, reserved.start)
        return Admitted(tuple(statuses.values()), exceeded, reserved.held_by, holds_slot, priority)

    def _fair_demand(self, request: ReserveRequest, weight: int) -> FairDemand | None:
        """The work of the request in its queue: that of the base model, on all of its pods."""
        model = self._policy().models.get(request.model)
        if model is None or request.from_cache:
            return None
        rates = Rates.of_weight(weight)
        prompt = request.prompt_tokens or 0
        return FairDemand(
            queue=model.base,
            work=rates.work(prompt, request.tokens - prompt),
            rates=rates,
            virtual_time=self._virtual_times.of(model.base, model.fairness_floor),
        )

    def _tenant_of(self, request: ReserveRequest) -> Tenant | None:
        """Raises StoreError where the limits of the key are not known here yet."""
        caller = Caller(request.tenant, request.user, request.key)
        try:
            return tenant_of(caller, self._policy(), self._keys)
        except KeysUnavailableError as error:
            raise StoreError(str(error)) from None

    async def settle(
        self, reservation: str, tenant: str, usage: Usage, estimate: Estimate, held_by: str = ""
    ) -> SettlementResult:
        """Charges what a finished request used, once. Raises StoreError: then nothing is lost,
        settle again.

        When nothing changed, it returns DUPLICATE, UNKNOWN, DEFERRED or FORWARDED. An UNKNOWN one
        was never admitted. A DEFERRED one is kept until the outage ends. A FORWARDED one goes to
        the replica that holds the reservation.

        The calls of the proxy and of the access log often meet. Then the later one waits for the
        earlier one, and has its answer without asking the store.
        """
        async with self._settling.of(reservation):
            known = self._known.get(reservation)
            if known is None or known.tenant != tenant:
                known = Known(tenant=tenant, state=State.HELD, statuses={})
            return await self._settle(reservation, known, charge(usage, estimate), held_by)

    async def give_back(self, reservation: str) -> SettlementResult:
        """Gives back what a request holds that has ended before anybody heard of its admission.

        Changes nothing unless this process has reserved for it, and so knows its tenant. A later
        reservation is given back, too. Raises StoreError, as `settle` does.
        """
        self._known.end(reservation)
        known = self._known.get(reservation)
        if known is None:
            return SettleOutcome.UNKNOWN
        return await self.settle(reservation, known.tenant, Usage(), Estimate(0, 0))

    def pods_of(self, request: ReserveRequest) -> tuple[str, str]:
        """The labels of the pods that compute a request: its base model and its version."""
        return pods_of(self._policy(), request.model, request.version)

    def known_outcome(self, reservation: str, tenant: str) -> SettleOutcome | None:
        """The outcome of a settlement that would change nothing, as this process remembers.

        None if `settle` has to find out.
        """
        known = self._known.get(reservation)
        if known is None or known.tenant != tenant:
            return None
        return _UNCHANGED.get(known.state)

    async def _settle(
        self, reservation: str, known: Known, cost: Charge, held_by: str
    ) -> SettlementResult:
        if known.state in _UNCHANGED:
            return _UNCHANGED[known.state]
        tenant, now_s = known.tenant, self._clock.now_s()
        used: Mapping[str, int] = {}
        outcome = SettleOutcome.SETTLED
        if known.state is not State.FREE:
            settlement = (reservation, tenant, _spent(cost), now_s)
            if held_by and self._settle_held is not None:
                settled = await self._settle_held(held_by, *settlement)
            else:
                settled = await self._store.settle(*settlement)
            outcome = settled.outcome
            if settled.start is not None and cost.requests:
                self._virtual_times.started(settled.start)
            used = settled.used
        if outcome is SettleOutcome.UNKNOWN:  # not remembered: its reserve call may still come
            return outcome
        settled_here = Known(
            tenant=tenant,
            state=State.SETTLED,
            statuses=known.statuses,
            used=used,
            settled_s=now_s,
        )
        self._known.remember(reservation, settled_here)
        return cost.source if outcome is SettleOutcome.SETTLED else outcome

    def limits_of(self, reservation: str) -> tuple[LimitStatus, ...]:
        """The limits of a reservation, as they were after the last call about it in this process.

        Empty if there was none.
        """
        known = self._known.get(reservation)
        return () if known is None else known.statuses_now()

    def _remember_new(self, request: ReserveRequest, state: State) -> None:
        """A repeated call after a change of the policy must not hide what the store holds."""
        known = self._known.get(request.reservation)
        if known is None or known.state is State.ASKED:
            self._known.remember(request.reservation, Known(tenant=request.tenant, state=state))


def _audio_seconds(request: ReserveRequest, policy: CompiledPolicy) -> int:
    """The seconds of audio that the estimate stands for, where they have a price."""
    per_second = tokens_per_second(policy, request.api)
    prompt = request.tokens if request.prompt_tokens is None else request.prompt_tokens
    return Estimate(request.tokens, prompt, per_second).seconds or 0


def _priority(request: ReserveRequest, fair: FairDemand | None, start: int | None) -> int | None:
    """The place of the request in its queue. Where nothing counts the work, it goes on at once."""
    if fair is None or request.api not in WITH_PRIORITY:
        return None
    return fair.virtual_time if start is None else start


def _state_of(reserved: Reserved) -> State:
    if reserved.decision is ReserveDecision.REFUSED:
        return State.REFUSED
    return State.HELD if reserved.held else State.FREE


def _spent(cost: Charge) -> Spent:
    return Spent(
        cost.requests, cost.prompt - cost.cached, cost.cached, cost.completion, cost.seconds or 0
    )
