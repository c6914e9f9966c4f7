"""One Check for everything: who calls, what is asked, and whether there is budget left."""

from collections.abc import Mapping
from dataclasses import replace

from extauthz import wire as identity
from extauthz.cors import Headers
from extauthz.decide import Allow
from extauthz.service import Authorization
from extproc.edits import Edited
from extproc.service import ExternalProcessor
from extproc.types import Answer, Refuse, RequestFacts
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate.core.apis import Api, door_of
from headgate.core.clock import Clock
from headgate.core.contract import AdmissionKey, CallerKey
from headgate.core.errors import ApiError, Refusal
from headgate.core.hook_timer import HookTimer
from headgate.core.lean_contract import PATH_METADATA
from headgate.core.metrics import Metrics
from headgate.core.policy import Caller
from headgate.core.rpc import Context, Method, Status
from headgate.lean import wire
from ratelimit.answers import Admitted, ReserveRequest
from ratelimit.headers import quota_headers, refusal_message, refused_headers
from ratelimit.service import RateLimitService
from ratelimit.store.protocol import StoreError

_HOOK = "lean"
_STORE_AWAY = ApiError(Refusal.UNAVAILABLE, "A service of the gateway is unavailable. Try again.")


class LeanCheck:
    """Answers Check on both paths: Envoy's filter says which one it is on.

    On the lean path the three hooks decide one after the other. Each makes its own decision, as on
    the standard path, and counts it in its own metrics.
    """

    def __init__(
        self,
        *,
        authorization: Authorization,
        processor: ExternalProcessor,
        rate_limit: RateLimitService,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._authorization = authorization
        self._processor = processor
        self._rate_limit = rate_limit
        self._clock = clock
        self._seconds = metrics.hook_seconds.labels(_HOOK)

    def methods(self) -> tuple[Method, ...]:
        """The methods of `envoy.service.auth.v3.Authorization`."""
        return tuple(
            replace(method, behavior=self.check) for method in self._authorization.methods()
        )

    async def check(self, message: CheckRequest, context: Context) -> CheckResponse:
        """Decides about one request: all of it, or on the standard path who calls."""
        name, value = PATH_METADATA
        if context.metadata(name) != value:
            return await self._authorization.check(message, context)
        with HookTimer(self._seconds, self._clock):
            asked = wire.decode(message)
            if not asked.check.request_id:
                context.abort(Status.INVALID_ARGUMENT, "a lean check needs the x-request-id")
            return await self._decide(asked)

    async def _decide(self, asked: wire.Asked) -> CheckResponse:
        known = await self._authorization.identify(asked.check)
        page = self._authorization.page_headers(asked.check)
        if not isinstance(known, Allow):
            return identity.encode(known, page, asked.check.request_id)
        response = await self._decide_for(known.caller, asked, page)
        if known.display_name:
            wire.note(response.dynamic_metadata, {CallerKey.DISPLAY_NAME: known.display_name})
        return response

    async def _decide_for(self, caller: Caller, asked: wire.Asked, page: Headers) -> CheckResponse:
        facts = asked.by(caller)
        decision = await self._processor.decide(facts, facts.request_id)
        match decision:
            case Refuse():
                return wire.encode_refusal(decision, facts, page, wire.identified(caller))
            case Answer():
                return wire.encode_answer(decision, page, wire.identified(caller))
            case Edited():
                return await self._reserve(decision, facts, page)

    async def _reserve(self, edited: Edited, facts: RequestFacts, page: Headers) -> CheckResponse:
        admission = edited.admit.admission
        try:
            decision = await self._rate_limit.reserve(_reserve_request(admission))
        except StoreError:
            away = Refuse(_STORE_AWAY, door_of(facts.path).shape)
            return wire.encode_refusal(away, facts, page, admission, wire.STORE_AWAY)
        now_s = self._clock.now_s()
        if isinstance(decision, Admitted):
            return wire.encode_admission(
                edited, decision, quota_headers(decision.limits, now_s), page
            )
        message = refusal_message(decision, admission[AdmissionKey.TENANT])
        refuse = Refuse(ApiError(Refusal.OVER_LIMIT, message), door_of(facts.path).shape)
        headers = (*refused_headers(decision, now_s), *page)
        response = wire.encode_denial(refuse, facts, headers, admission, wire.OVER_LIMIT)
        wire.note(response.dynamic_metadata, decision.facts())
        return response


def _reserve_request(admission: Mapping[AdmissionKey, str]) -> ReserveRequest:
    return ReserveRequest(
        reservation=admission[AdmissionKey.RESERVATION],
        tenant=admission[AdmissionKey.TENANT],
        user=admission[AdmissionKey.USER],
        key=admission[AdmissionKey.KEY],
        model=admission[AdmissionKey.MODEL],
        version=admission.get(AdmissionKey.VERSION),
        api=Api(admission[AdmissionKey.API]),
        tokens=int(admission[AdmissionKey.ESTIMATE]),
        prompt_tokens=int(admission[AdmissionKey.ESTIMATE_PROMPT]),
    )
