"""The filters that call the rate-limit service, and the descriptors that they send."""

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, TypedExtensionConfig
from envoy_data_plane.envoy.config.ratelimit.v3 import RateLimitServiceConfig
from envoy_data_plane.envoy.config.rbac.v3 import (
    MetadataSource,
    Permission,
    PermissionSet,
    Policy,
    Principal,
    RbacAction,
    SourcedMetadata,
)
from envoy_data_plane.envoy.config.rbac.v3 import Rbac as Rules
from envoy_data_plane.envoy.config.route.v3 import (
    RateLimit,
    RateLimitAction,
    RateLimitActionGenericKey,
    RateLimitActionMetaData,
    RateLimitActionRequestHeaders,
    RateLimitHitsAddend,
)
from envoy_data_plane.envoy.extensions.filters.http.ratelimit.v3 import (
    RateLimit as RateLimitFilter,
)
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.rate_limit_descriptors.expr.v3 import Descriptor
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    RegexMatcher,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.google.protobuf import Any

from headgate.core.contract import (
    ABSENT,
    DESCRIPTOR_ENTRIES,
    DOMAIN,
    OP,
    OP_RESERVE,
    OP_SETTLE,
    AdmissionKey,
    Namespace,
    UsageKey,
)
from headgate.core.lean_contract import LeanKey
from headgate.core.trace_headers import REQUEST_ID, REQUEST_ID_ENTRY
from headgate.dataplane.hook_calls import HOOK_TIMEOUT, UNAVAILABLE, hook_service, http_filter

PLAIN_COUNT = "[0-9]{1,15}"
ABANDONED = (
    "has(upstream.cx_pool_ready_duration) && upstream.transport_failure_reason == '' && "
    "(!has(response.code) || response.code == 504 && response.code_details != 'via_upstream')"
)
"""In CEL: the request went out on a connection to vLLM, and there was no answer but perhaps Envoy's
own 504. An upstream address would not prove a connection, because it is set before any."""

_ADMISSION_GUARD = "headgate.admission_guard"
LARGE_BODY = "headgate.large_body"
"""The metadata namespace in which the large body reader marks a request. No service reads it."""
LARGE_BODY_POLICY = "large_body"
"""The name in Envoy's response code details of a refusal by `large_body_guard`."""


def admission_guard() -> HttpFilter:
    """Stops a request whose admission has no estimate in plain digits.

    Its `hits_addend.format` would give no number. The rate-limit filter would silently drop the
    descriptor, make no call, and let the request pass unlimited.
    """
    return _guard(_ADMISSION_GUARD, RbacAction.ALLOW, {"admitted": _estimate(Namespace.ADMISSION)})


def lean_admission_guard() -> HttpFilter:
    """`admission_guard` on the lean path, which also stops a request whose edits were not made.

    The answer of ext_authz is the admission. If it has edits, the body editor writes the estimate
    after them.
    """
    edits = _metadata(Namespace.CALLER, LeanKey.EDITS, ValueMatcher(present_match=True))
    no_edits = Permission(not_rule=edits)
    untouched = PermissionSet(rules=[_estimate(Namespace.CALLER), no_edits])
    admitted = {
        "edited": _estimate(Namespace.ADMISSION),
        "untouched": Permission(and_rules=untouched),
    }
    return _guard(_ADMISSION_GUARD, RbacAction.ALLOW, admitted)


def _estimate(namespace: str) -> Permission:
    digits = StringMatcher(safe_regex=RegexMatcher(regex=PLAIN_COUNT))
    return _metadata(namespace, AdmissionKey.ESTIMATE, ValueMatcher(string_match=digits))


def large_body_guard() -> HttpFilter:
    """Stops a request whose body the large body reader has dropped; `replies` makes it a 413."""
    was_read = ValueMatcher(string_match=StringMatcher(exact="yes"))
    policies = {LARGE_BODY_POLICY: _metadata(LARGE_BODY, "read", was_read)}
    return _guard("headgate.large_body_guard", RbacAction.DENY, policies)


def _metadata(namespace: str, key: str, value: ValueMatcher) -> Permission:
    matcher = MetadataMatcher(
        filter=namespace, path=[MetadataMatcherPathSegment(key=key)], value=value
    )
    return Permission(
        sourced_metadata=SourcedMetadata(
            metadata_matcher=matcher, metadata_source=MetadataSource.DYNAMIC
        )
    )


def _guard(name: str, action: RbacAction, policies: dict[str, Permission]) -> HttpFilter:
    anyone = [Principal(any=True)]
    matched = {
        policy: Policy(permissions=[permission], principals=anyone)
        for policy, permission in policies.items()
    }
    return http_filter(name, Rbac(rules=Rules(action=action, policies=matched)))


def ratelimit(services: str) -> HttpFilter:
    """Reserves the request's tokens before the router, and settles when the stream ends."""
    return _ratelimit("headgate.ratelimit", services, [_reserve(), _settle()])


def _ratelimit(name: str, services: str, rate_limits: list[RateLimit]) -> HttpFilter:
    return http_filter(
        name,
        RateLimitFilter(
            domain=DOMAIN,
            timeout=HOOK_TIMEOUT,
            failure_mode_deny=True,
            status_on_error=UNAVAILABLE,
            rate_limit_service=RateLimitServiceConfig(
                grpc_service=hook_service(services), transport_api_version=ApiVersion.V3
            ),
            disable_x_envoy_ratelimited_header=True,
            rate_limits=rate_limits,
        ),
    )


def slot_settler(services: str) -> HttpFilter:
    """On the lean path: tells the end of each request that holds a slot. It calls for no other."""
    return _ratelimit("headgate.slot_settler", services, [_settle_slot()])


def _settle_slot() -> RateLimit:
    """The first entry has no default value: without a slot the descriptor is dropped.

    The answer of ext_authz is the admission, and has the reserve answer's metadata, too.
    """
    slot = _entry(Namespace.CALLER, LeanKey.SLOT, default="")
    entries = DESCRIPTOR_ENTRIES[OP_SETTLE].items()
    spaces = dict.fromkeys((Namespace.ADMISSION, Namespace.LIMITS), Namespace.CALLER)
    named = [_entry(spaces.get(space, space), name) for name, space in entries]
    return RateLimit(
        actions=[slot, _operation(OP_SETTLE), *named, _abandoned()],
        hits_addend=RateLimitHitsAddend(number=0),
        apply_on_stream_done=True,
    )


def _reserve() -> RateLimit:
    estimate = f"%DYNAMIC_METADATA({Namespace.ADMISSION}:{AdmissionKey.ESTIMATE})%"
    request_id = RateLimitActionRequestHeaders(
        header_name=REQUEST_ID, descriptor_key=REQUEST_ID_ENTRY, skip_if_absent=True
    )
    return RateLimit(
        actions=[*_actions(OP_RESERVE), RateLimitAction(request_headers=request_id)],
        hits_addend=RateLimitHitsAddend(format=estimate),
    )


def _settle() -> RateLimit:
    """Sent when the stream ends, in whatever way. Its values are read at that time."""
    return RateLimit(
        actions=[*_actions(OP_SETTLE), _abandoned()],
        hits_addend=RateLimitHitsAddend(number=0),
        apply_on_stream_done=True,
    )


def _actions(op: str) -> list[RateLimitAction]:
    """The entries of a descriptor: its `op`, then its values from metadata."""
    entries = DESCRIPTOR_ENTRIES[op].items()
    return [_operation(op), *(_entry(space, name) for name, space in entries)]


def _operation(op: str) -> RateLimitAction:
    key = RateLimitActionGenericKey(descriptor_key=OP, descriptor_value=op)
    return RateLimitAction(generic_key=key)


def _abandoned() -> RateLimitAction:
    """Whether nobody waited for the answer. The metadata cannot say it: no filter runs when a
    client disconnects.

    The expression is evaluated when the stream ends. It is skipped on an error, because otherwise
    Envoy would drop the whole descriptor.
    """
    # mypy takes this for protobuf's Descriptor, which the generated module imports, too.
    expression: betterproto2.Message = Descriptor(  # type: ignore[assignment]
        descriptor_key=UsageKey.ABANDONED,  # type: ignore[call-arg]
        text=ABANDONED,
        skip_if_error=True,
    )
    return RateLimitAction(
        extension=TypedExtensionConfig(
            name="envoy.rate_limit_descriptors.expr", typed_config=Any.pack(expression)
        )
    )


def _entry(namespace: Namespace, key: str, default: str = ABSENT) -> RateLimitAction:
    return RateLimitAction(
        metadata=RateLimitActionMetaData(
            descriptor_key=key,
            metadata_key=MetadataKey(key=namespace, path=[MetadataKeyPathSegment(key=key)]),
            default_value=default,
        )
    )
