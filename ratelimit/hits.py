"""Asks the limits about an answer from the cache, which never reaches Envoy's rate-limit filter."""

from collections.abc import Mapping

from headgate.core.answer_cache import HitAllowed, HitRefused
from headgate.core.apis import Api
from headgate.core.clock import Clock
from headgate.core.contract import AdmissionKey
from ratelimit.answers import Admitted, ReserveRequest
from ratelimit.headers import quota_headers, refusal_message, refused_headers
from ratelimit.service import RateLimitService
from ratelimit.store.protocol import StoreError


class HitLimits:
    """Reserves for an answer from the cache as for one of the model, by the same service.

    It meets the same limits, but takes no slot and has no place in a queue. Its tokens are known,
    so the reservation is exact. The access log settles it.
    """

    def __init__(self, service: RateLimitService, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    async def __call__(
        self, admission: Mapping[AdmissionKey, str], prompt: int, completion: int, /
    ) -> HitAllowed | HitRefused | None:
        """The decision of the limits; None if the store cannot be asked."""
        tenant = admission[AdmissionKey.TENANT]
        request = ReserveRequest(
            reservation=admission[AdmissionKey.RESERVATION],
            tenant=tenant,
            user=admission[AdmissionKey.USER],
            key=admission[AdmissionKey.KEY],
            model=admission[AdmissionKey.MODEL],
            version=admission.get(AdmissionKey.VERSION),
            api=Api(admission[AdmissionKey.API]),
            tokens=prompt + completion,
            prompt_tokens=prompt,
            from_cache=True,
        )
        try:
            decision = await self._service.reserve(request)
        except StoreError:
            return None
        now_s = self._clock.now_s()
        if isinstance(decision, Admitted):
            return HitAllowed(tuple(quota_headers(decision.limits, now_s)), decision.held_by)
        limit = None if decision.hit is None else decision.hit.id
        headers = tuple(refused_headers(decision, now_s))
        return HitRefused(refusal_message(decision, tenant), headers, limit)
