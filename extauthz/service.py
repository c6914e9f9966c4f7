"""Envoy's external authorization service: Check()."""

from collections.abc import Callable

from extauthz import wire
from extauthz.cors import Headers, answer_headers
from extauthz.decide import (
    Allow,
    Answer,
    CheckResult,
    Deny,
    decided,
    ending,
    too_many_failures,
)
from extauthz.failures import FailureLimit
from extauthz.identify import Verifier
from extauthz.request import CheckInput
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate.core.apis import door_of
from headgate.core.clock import Clock
from headgate.core.contract import ABSENT
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.core.rpc import Method

_HOOK = "ext_authz"
_CHECK = "/envoy.service.auth.v3.Authorization/Check"


class Authorization:
    """Answers Check with the caller of the request. Each call reads the policy once.

    Once `admits` returns False every request is refused with 503. A request without a known key
    counts against its address in `failures`. A call that fails here ends with a gRPC error, which
    Envoy (failure_mode_allow: false) turns into a refusal.
    """

    def __init__(
        self,
        policy: Callable[[], CompiledPolicy],
        verifier: Verifier,
        failures: FailureLimit,
        clock: Clock,
        metrics: Metrics,
        *,
        admits: Callable[[], bool] = lambda: True,
        keys: KeyRing = NO_KEYS,
    ) -> None:
        self._policy = policy
        self._verifier = verifier
        self._admits = admits
        self._keys = keys
        self._failures = failures
        self._clock = clock
        self._metrics = metrics

    def methods(self) -> tuple[Method, ...]:
        """The methods of `envoy.service.auth.v3.Authorization`."""
        check = Method(
            path=_CHECK,
            behavior=self.check,
            read=CheckRequest.FromString,
            write=CheckResponse.SerializeToString,
        )
        return (check,)

    async def check(self, message: CheckRequest, _context: object) -> CheckResponse:
        """Authenticates one request."""
        with self._metrics.time_hook(_HOOK):
            request = wire.decode(message)
            known, page = await self.identify(request), self.page_headers(request)
            return wire.encode(known, page, request.request_id)

    async def identify(self, request: CheckInput) -> CheckResult:
        """Decides about one request, and counts the decision."""
        result = await self._decide(request, self._policy())
        label = "ok" if isinstance(result, Allow) else _label(result)
        self._metrics.decisions.labels(_HOOK, label).value += 1
        if isinstance(result, Deny) and not result.recorded:
            self._count_unrecorded(request.path, result)
        return result

    def page_headers(self, request: CheckInput) -> Headers:
        """The headers by which a web page may read any answer to this request."""
        return answer_headers(request.page.origin, self._policy().cors_origins)

    def _count_unrecorded(self, path: str, denied: Deny) -> None:
        """The access log counts all other requests, but does not see this one."""
        endpoint = door_of(path).endpoint
        api = ABSENT if endpoint is None else endpoint.api
        status = str(denied.error.refusal.status)
        self._metrics.requests.labels(ABSENT, ABSENT, api, status).inc()
        answers = self._metrics.of_requests.answers
        answers.labels(ABSENT, ABSENT, f"{status[0]}xx", ABSENT).inc()

    async def _decide(self, request: CheckInput, policy: CompiledPolicy) -> CheckResult:
        if not self._admits():
            return ending(request)
        result = await decided(request, policy, self._verifier, self._keys)
        if not isinstance(result, Deny) or not result.counted:
            return result
        wait_s = self._failures.count(request.address, self._clock.monotonic_s())
        return result if wait_s is None else too_many_failures(result.shape, wait_s)


def _label(result: Deny | Answer) -> str:
    return result.error.refusal.code if isinstance(result, Deny) else result.kind
