"""Envoy's global rate limit service: decode, decide, encode, record."""

import logging
from collections.abc import Callable

from msgspec.structs import replace

from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.clock import Clock
from headgate.core.contract import DOMAIN
from headgate.core.errors import Refusal
from headgate.core.metrics import Metrics
from headgate.core.rpc import Context, Method, Status
from ratelimit.answers import Admitted, Refused, ReserveRequest
from ratelimit.descriptors.service import DescriptorLimits
from ratelimit.descriptors.wire import BadCallError
from ratelimit.fullness import Fullness
from ratelimit.limiter import Limiter
from ratelimit.store.protocol import StoreError
from ratelimit.wire import (
    BadDescriptorError,
    SettleCall,
    decode,
    encode_decision,
    encode_settled,
)

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
METHOD = "ShouldRateLimit"
_HOOK = "ratelimit"

log = logging.getLogger("headgate.ratelimit")


class RateLimitService:
    """Answers `ShouldRateLimit` for the two calls of a request: reserve, and settle at its end.

    A bad call gets INVALID_ARGUMENT, and a call that the store cannot answer gets UNAVAILABLE.
    With `failure_mode_deny`, Envoy then refuses the request. Calls of another domain than ours
    go to `descriptor_limits`; without it they are bad calls. `limited_as` gives the model whose
    limits hold for a name: the base model of an adapter that was registered at run time.
    """

    def __init__(
        self,
        limiter: Limiter,
        metrics: Metrics,
        clock: Clock,
        descriptor_limits: DescriptorLimits | None = None,
        *,
        limited_as: Callable[[str], str] = str,
    ) -> None:
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self._descriptor_limits = descriptor_limits
        self._limited_as = limited_as
        self._reserved_tokens = metrics.demand.reserved_tokens.labels
        self._reserved_requests = metrics.demand.reserved_requests.labels
        self._fullness = Fullness(clock.now_s)
        metrics.registry.register(self._fullness)

    def methods(self) -> tuple[Method, ...]:
        """The methods of `envoy.service.ratelimit.v3.RateLimitService`."""
        method = Method(
            path=f"/{SERVICE}/{METHOD}",
            behavior=self.should_rate_limit,
            read=RateLimitRequest.FromString,
            write=RateLimitResponse.SerializeToString,
        )
        return (method,)

    async def should_rate_limit(
        self,
        message: RateLimitRequest,
        context: Context,
    ) -> RateLimitResponse:
        """Answers one call of Envoy. Ends it with a gRPC status if there is no answer."""
        with self._metrics.time_hook(_HOOK):
            if self._descriptor_limits is not None and message.domain != DOMAIN:
                return await self._other_domain(self._descriptor_limits, message, context)
            try:
                call = decode(message)
            except BadDescriptorError as error:
                self._count("invalid_descriptor")
                log.warning("refused a bad rate limit call: %s", error)
                context.abort(Status.INVALID_ARGUMENT, str(error))
            operation = "reserve" if isinstance(call, ReserveRequest) else "settle"
            try:
                return await self._answer(call)
            except StoreError as error:
                self._record_store_error(operation)
                context.abort(Status.UNAVAILABLE, str(error))

    async def _other_domain(
        self,
        descriptor_limits: DescriptorLimits,
        message: RateLimitRequest,
        context: Context,
    ) -> RateLimitResponse:
        """Answers as envoyproxy/ratelimit does, whose errors all have the status UNKNOWN."""
        try:
            response = await descriptor_limits.answer(message)
        except BadCallError as error:
            self._count("invalid_descriptor")
            context.abort(Status.UNKNOWN, str(error))
        except StoreError as error:
            self._record_store_error("count")
            context.abort(Status.UNAVAILABLE, str(error))
        is_ok = response.overall_code == RateLimitResponse.OK
        self._count("ok" if is_ok else Refusal.OVER_LIMIT.code)
        return response

    async def _answer(self, call: ReserveRequest | SettleCall) -> RateLimitResponse:
        if isinstance(call, ReserveRequest):
            decision = await self._reserve(call)
            return encode_decision(call, decision, self._clock.now_s())
        await self._settle(call)
        return encode_settled()

    async def reserve(self, call: ReserveRequest) -> Admitted | Refused:
        """Reserves for a request, and counts the decision. Raises StoreError, counted too."""
        try:
            return await self._reserve(call)
        except StoreError:
            self._record_store_error("reserve")
            raise

    async def _reserve(self, call: ReserveRequest) -> Admitted | Refused:
        limited_as = self._limited_as(call.model)
        if limited_as != call.model:
            call = replace(call, model=limited_as)
        decision = await self._limiter.reserve(call)
        self._fullness.note(call.tenant, decision.limits)
        if isinstance(decision, Admitted):
            self._record_admission(call, decision)
        else:
            self._record_refusal(call, decision)
        return decision

    async def _settle(self, call: SettleCall) -> None:
        if call.reservation is None:
            return
        outcome = await self._limiter.settle(
            call.reservation, call.tenant, call.usage, call.estimate, call.held_by
        )
        self._fullness.note_slots(call.tenant, self._limiter.limits_of(call.reservation))
        self._metrics.settlements.labels(_HOOK, outcome.value).inc()

    def _record_admission(self, call: ReserveRequest, admitted: Admitted) -> None:
        self._metrics.decisions.labels(_HOOK, "ok").value += 1
        if not call.from_cache:
            pods = self._limiter.pods_of(call)
            self._reserved_requests(*pods).value += 1
            self._reserved_tokens(*pods).value += call.tokens
        for limit in admitted.exceeded:
            self._metrics.shadow_refusals.labels(call.tenant, limit.id).inc()

    def _record_refusal(self, call: ReserveRequest, refused: Refused) -> None:
        self._count(Refusal.OVER_LIMIT.code)
        if refused.hit is None:
            return
        self._metrics.of_requests.refusals.labels(call.tenant, refused.hit.id).inc()

    def _count(self, decision: str) -> None:
        self._metrics.decisions.labels(_HOOK, decision).value += 1

    def _record_store_error(self, operation: str) -> None:
        """Counts every failure. The store itself logs when it becomes unavailable and recovers."""
        self._metrics.store_errors.labels(operation).inc()
        if operation in ("reserve", "count"):
            self._count("store_error")
