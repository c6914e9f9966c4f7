"""Envoy's global rate-limit service: decode, decide, encode, record."""

import logging

import grpc

from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.clock import Clock
from headgate.core.contract import DOMAIN
from headgate.core.errors import Refusal
from headgate.core.metrics import Metrics
from ratelimit.answers import Admitted, ReserveRequest
from ratelimit.descriptors.service import DropIn
from ratelimit.descriptors.wire import BadCallError
from ratelimit.limiter import Limiter
from ratelimit.store.protocol import StoreError
from ratelimit.wire import BadDescriptorError, Settle, decode, encode_decision, encode_settled

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
METHOD = "ShouldRateLimit"
_HOOK = "ratelimit"

log = logging.getLogger("headgate.ratelimit")


class RateLimitService:
    """Answers `ShouldRateLimit` for the two calls of a request: reserve, and settle at its end.

    A call that is not understood gets INVALID_ARGUMENT and one that the store cannot answer
    gets UNAVAILABLE: with `failure_mode_deny` Envoy then refuses the request. Calls of another
    domain than ours go to `drop_in`; without one they are not understood.
    """

    def __init__(
        self, limiter: Limiter, metrics: Metrics, clock: Clock, drop_in: DropIn | None = None
    ) -> None:
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self._drop_in = drop_in

    def handler(self) -> grpc.GenericRpcHandler:
        """The handler for a gRPC asyncio server."""
        method: grpc.RpcMethodHandler[RateLimitRequest, RateLimitResponse] = (
            grpc.unary_unary_rpc_method_handler(
                self.should_rate_limit,
                request_deserializer=RateLimitRequest.FromString,
                response_serializer=RateLimitResponse.SerializeToString,
            )
        )
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    async def should_rate_limit(
        self,
        message: RateLimitRequest,
        context: "grpc.aio.ServicerContext[RateLimitRequest, RateLimitResponse]",
    ) -> RateLimitResponse:
        """One call of Envoy's. Ends it with a gRPC status where there is no answer."""
        with self._metrics.time_hook(_HOOK):
            if self._drop_in is not None and message.domain != DOMAIN:
                return await self._other_domain(self._drop_in, message, context)
            try:
                call = decode(message)
            except BadDescriptorError as error:
                self._count("invalid_descriptor")
                log.warning("refused a call of the proxy: %s", error)
                return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            operation = "reserve" if isinstance(call, ReserveRequest) else "settle"
            try:
                return await self._answer(call)
            except StoreError as error:
                self._record_store_error(operation)
                return await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def _other_domain(
        self,
        drop_in: DropIn,
        message: RateLimitRequest,
        context: "grpc.aio.ServicerContext[RateLimitRequest, RateLimitResponse]",
    ) -> RateLimitResponse:
        """As envoyproxy/ratelimit answers, whose errors all have the status UNKNOWN."""
        try:
            response = await drop_in.answer(message)
        except BadCallError as error:
            self._count("invalid_descriptor")
            return await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except StoreError as error:
            self._record_store_error("count")
            return await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        is_ok = response.overall_code == RateLimitResponse.OK
        self._count("ok" if is_ok else Refusal.OVER_LIMIT.code)
        return response

    async def _answer(self, call: ReserveRequest | Settle) -> RateLimitResponse:
        if isinstance(call, ReserveRequest):
            decision = await self._limiter.reserve(call)
            if isinstance(decision, Admitted):
                self._count("ok")
                for limit in decision.exceeded:
                    self._metrics.shadow_refusals.labels(call.tenant, limit.id).inc()
            else:
                self._count(Refusal.OVER_LIMIT.code)
            return encode_decision(call, decision, self._clock.now_s())
        await self._settle(call)
        return encode_settled()

    async def _settle(self, call: Settle) -> None:
        if call.reservation is None:
            return
        outcome = await self._limiter.settle(
            call.reservation, call.tenant, call.usage, call.estimate, call.held_by
        )
        self._metrics.settlements.labels(_HOOK, outcome.value).inc()

    def _count(self, decision: str) -> None:
        self._metrics.decisions.labels(_HOOK, decision).inc()

    def _record_store_error(self, operation: str) -> None:
        """Counts every failure. The store itself logs when it goes away and comes back."""
        self._metrics.store_errors.labels(operation).inc()
        if operation in ("reserve", "count"):
            self._count("store_error")
