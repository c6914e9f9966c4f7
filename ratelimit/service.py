"""Envoy's global rate-limit service: decode, decide, encode, record."""

import logging

import grpc

from headgate.clock import Clock
from headgate.errors import Refusal
from headgate.metrics import Metrics
from protos.gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from ratelimit.limiter import Admitted, Limiter, Request
from ratelimit.store.protocol import StoreError
from ratelimit.wire import BadDescriptorError, Settle, decode, encode_decision, encode_settled

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
METHOD = "ShouldRateLimit"
_HOOK = "ratelimit"

log = logging.getLogger("headgate.ratelimit")


class RateLimitService:
    """Answers `ShouldRateLimit` for the two calls of a request: reserve, and settle at its end.

    A call that is not understood gets INVALID_ARGUMENT and one that the store cannot answer
    gets UNAVAILABLE: with `failure_mode_deny` Envoy then refuses the request.
    """

    def __init__(self, limiter: Limiter, metrics: Metrics, clock: Clock) -> None:
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock

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
            try:
                call = decode(message)
            except BadDescriptorError as error:
                self._count("invalid_descriptor")
                log.warning("refused a call of the proxy: %s", error)
                return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            operation = "reserve" if isinstance(call, Request) else "settle"
            try:
                return await self._answer(call)
            except StoreError as error:
                self._record_store_error(operation)
                return await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def _answer(self, call: Request | Settle) -> RateLimitResponse:
        if isinstance(call, Request):
            decision = await self._limiter.reserve(call)
            self._count("ok" if isinstance(decision, Admitted) else Refusal.OVER_LIMIT.code)
            return encode_decision(call, decision, self._clock.now_s())
        await self._settle(call)
        return encode_settled()

    async def _settle(self, call: Settle) -> None:
        if call.reservation is None:
            return
        outcome = await self._limiter.settle(
            call.reservation, call.tenant, call.usage, call.estimate
        )
        self._metrics.settlements.labels(_HOOK, outcome.value).inc()

    def _count(self, decision: str) -> None:
        self._metrics.decisions.labels(_HOOK, decision).inc()

    def _record_store_error(self, operation: str) -> None:
        """Counts every failure. The store itself logs when it goes away and comes back."""
        self._metrics.store_errors.labels(operation).inc()
        if operation == "reserve":
            self._count("store_error")
