"""The calls that Envoy makes, as our filter configuration tells it to."""

from headgate._gen.ratelimit_pb2 import RateLimitDescriptor, RateLimitRequest
from headgate.core.contract import (
    ABSENT,
    DOMAIN,
    OP,
    OP_RESERVE,
    OP_SETTLE,
    RESERVE_ENTRIES,
    SETTLE_ADMISSION_ENTRIES,
    SETTLE_LIMITS_ENTRIES,
    SETTLE_USAGE_ENTRIES,
)

CALLER = {
    "reservation": "r1",
    "tenant": "demo",
    "user": "alice",
    "key": "k1",
    "model": "tiny",
    "api": "chat",
    "estimate_prompt": "100",
}
ENDED = {
    "reservation": "r1",
    "tenant": "demo",
    "estimate": "500",
    "estimate_prompt": "100",
    "status": "200",
    "prompt": "120",
    "completion": "30",
    "complete": "1",
}


def reserve(tokens: int | None = 500, domain: str = DOMAIN, **changed: str) -> RateLimitRequest:
    """A reserve; `tokens` None stands for an estimate that Envoy did not find."""
    values = {**CALLER, **changed}
    descriptor = _descriptor(OP_RESERVE, {key: values.get(key, ABSENT) for key in RESERVE_ENTRIES})
    if tokens is not None:
        descriptor.hits_addend.value = tokens
    return RateLimitRequest(domain=domain, descriptors=[descriptor])


def settle(**changed: str) -> RateLimitRequest:
    """A settlement; what the response path did not write is ABSENT."""
    values = {**ENDED, **changed}
    names = (*SETTLE_ADMISSION_ENTRIES, *SETTLE_LIMITS_ENTRIES, *SETTLE_USAGE_ENTRIES)
    descriptor = _descriptor(OP_SETTLE, {key: values.get(key, ABSENT) for key in names})
    descriptor.hits_addend.value = 0
    return RateLimitRequest(domain=DOMAIN, descriptors=[descriptor])


def _descriptor(op: str, entries: dict[str, str]) -> RateLimitDescriptor:
    pairs = {OP: op, **entries}.items()
    return RateLimitDescriptor(
        entries=[RateLimitDescriptor.Entry(key=key, value=value) for key, value in pairs]
    )
