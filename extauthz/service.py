"""Envoy's external authorization service: Check()."""

from collections.abc import Callable

import grpc

from extauthz import wire
from extauthz.decide import CheckInput, CheckResult, Deny, decide, ending, too_many_failures
from extauthz.failures import FailureLimit
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy

_HOOK = "ext_authz"
_SERVICE = "envoy.service.auth.v3.Authorization"


class Authorization:
    """Answers Check with the caller of the API key. Each call reads the policy once.

    Once `admits` returns False every request is refused with 503. A request without a known key
    counts against its address in `failures`. A call that fails here ends with a gRPC error, which
    Envoy (failure_mode_allow: false) turns into a refusal.
    """

    def __init__(
        self,
        policy: Callable[[], CompiledPolicy],
        failures: FailureLimit,
        clock: Clock,
        metrics: Metrics,
        admits: Callable[[], bool] = lambda: True,
    ) -> None:
        self._policy = policy
        self._admits = admits
        self._failures = failures
        self._clock = clock
        self._metrics = metrics

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler of `envoy.service.auth.v3.Authorization`."""
        check = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=CheckRequest.FromString,
            response_serializer=CheckResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(_SERVICE, {"Check": check})

    async def check(self, message: CheckRequest, _context: object) -> CheckResponse:
        """Authenticates one request."""
        with self._metrics.time_hook(_HOOK):
            result = self._decide(wire.decode(message))
            response = wire.encode(result)
        self._metrics.decisions.labels(_HOOK, _label(result)).inc()
        return response

    def _decide(self, request: CheckInput) -> CheckResult:
        if not self._admits():
            return ending(request)
        result = decide(request, self._policy())
        if not isinstance(result, Deny) or not result.anonymous:
            return result
        wait_s = self._failures.count(request.address, self._clock.monotonic_s())
        return result if wait_s is None else too_many_failures(result.shape, wait_s)


def _label(result: CheckResult) -> str:
    return result.error.refusal.code if isinstance(result, Deny) else "ok"
