"""The filters that ask the rate-limit service, and what they tell it."""

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, TypedExtensionConfig
from envoy_data_plane.envoy.config.ratelimit.v3 import RateLimitServiceConfig
from envoy_data_plane.envoy.config.rbac.v3 import (
    MetadataSource,
    Permission,
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
    DOMAIN,
    OP,
    OP_RESERVE,
    OP_SETTLE,
    RESERVE_ENTRIES,
    SETTLE_ADMISSION_ENTRIES,
    SETTLE_LIMITS_ENTRIES,
    SETTLE_USAGE_ENTRIES,
    AdmissionKey,
    Namespace,
    UsageKey,
)
from headgate.dataplane.hook_calls import HOOK_TIMEOUT, UNAVAILABLE, hook_service, http_filter

PLAIN_COUNT = "[0-9]{1,15}"
LEFT = (
    "!has(response.code) && has(upstream.cx_pool_ready_duration)"
    " && upstream.transport_failure_reason == ''"
)
"""In CEL: there was no answer, not even one of Envoy's own, and the request went out on a
connection to vLLM. (An address is there as soon as a host is chosen, before any connection.)"""


def admission_guard() -> HttpFilter:
    """Stops a request whose admission has no estimate in plain digits.

    The rate-limit filter would drop its descriptor without a word (its `hits_addend.format`
    would give no number), make no call, and let the request pass unlimited.
    """
    estimate = MetadataMatcher(
        filter=Namespace.ADMISSION,
        path=[MetadataMatcherPathSegment(key=AdmissionKey.ESTIMATE)],
        value=ValueMatcher(string_match=StringMatcher(safe_regex=RegexMatcher(regex=PLAIN_COUNT))),
    )
    permission = Permission(
        sourced_metadata=SourcedMetadata(
            metadata_matcher=estimate, metadata_source=MetadataSource.DYNAMIC
        )
    )
    admitted = Policy(permissions=[permission], principals=[Principal(any=True)])
    return http_filter(
        "headgate.admission_guard",
        Rbac(rules=Rules(action=RbacAction.ALLOW, policies={"admitted": admitted})),
    )


def ratelimit(services: str) -> HttpFilter:
    """Is there budget left? Reserves before the router and settles when the stream ends."""
    return http_filter(
        "headgate.ratelimit",
        RateLimitFilter(
            domain=DOMAIN,
            timeout=HOOK_TIMEOUT,
            failure_mode_deny=True,
            status_on_error=UNAVAILABLE,
            rate_limit_service=RateLimitServiceConfig(
                grpc_service=hook_service(services), transport_api_version=ApiVersion.V3
            ),
            disable_x_envoy_ratelimited_header=True,
            rate_limits=[_reserve(), _settle()],
        ),
    )


def _reserve() -> RateLimit:
    estimate = f"%DYNAMIC_METADATA({Namespace.ADMISSION}:{AdmissionKey.ESTIMATE})%"
    return RateLimit(
        actions=[_op(OP_RESERVE), *(_entry(Namespace.ADMISSION, key) for key in RESERVE_ENTRIES)],
        hits_addend=RateLimitHitsAddend(format=estimate),
    )


def _settle() -> RateLimit:
    """Sent when the stream ends, however it ends: its values are read then."""
    return RateLimit(
        actions=[
            _op(OP_SETTLE),
            *(_entry(Namespace.ADMISSION, key) for key in SETTLE_ADMISSION_ENTRIES),
            *(_entry(Namespace.LIMITS, key) for key in SETTLE_LIMITS_ENTRIES),
            *(_entry(Namespace.USAGE, key) for key in SETTLE_USAGE_ENTRIES),
            _left(),
        ],
        hits_addend=RateLimitHitsAddend(number=0),
        apply_on_stream_done=True,
    )


def _op(value: str) -> RateLimitAction:
    return RateLimitAction(
        generic_key=RateLimitActionGenericKey(descriptor_key=OP, descriptor_value=value)
    )


def _left() -> RateLimitAction:
    """What the metadata cannot say, as no filter runs when a client leaves. Its values are read at
    the stream's end; were it not skipped on an error, the descriptor would be dropped with it."""
    # For mypy this is protobuf's Descriptor, which the generated module imports, too.
    said: betterproto2.Message = Descriptor(  # type: ignore[assignment]
        descriptor_key=UsageKey.CLIENT_LEFT,  # type: ignore[call-arg]
        text=LEFT,
        skip_if_error=True,
    )
    return RateLimitAction(
        extension=TypedExtensionConfig(
            name="envoy.rate_limit_descriptors.expr", typed_config=Any.pack(said)
        )
    )


def _entry(namespace: Namespace, key: str) -> RateLimitAction:
    return RateLimitAction(
        metadata=RateLimitActionMetaData(
            descriptor_key=key,
            metadata_key=MetadataKey(key=namespace, path=[MetadataKeyPathSegment(key=key)]),
            default_value=ABSENT,
        )
    )
