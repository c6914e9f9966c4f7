"""The extensions of Envoy's API that Istio's builds of Envoy lack.

Source: istio/proxy, `bazel/extension_config/extensions_build_config.bzl` at 1.29, 1.30 and 1.31.
istiod accepts an absent extension, but a proxy then refuses the whole listener.
"""

import re

VERSIONS = ("1.29", "1.30", "1.31")
_MAX_PATTERN = 1024
"""Characters; istiod ignores a longer pattern."""

_HTTP = "envoy.extensions.filters.http."

ABSENT = (
    f"{_HTTP}sse_to_metadata.",
    "envoy.extensions.content_parsers.json.",
    f"{_HTTP}api_key_auth.",
    f"{_HTTP}mcp.",
    f"{_HTTP}mcp_router.",
    f"{_HTTP}transform.",
    f"{_HTTP}ai_protocol_manager.",
    f"{_HTTP}custom_response.",
    f"{_HTTP}file_system_buffer.",
    f"{_HTTP}geoip.",
    f"{_HTTP}thrift_to_metadata.",
    f"{_HTTP}proto_message_extraction.",
    f"{_HTTP}grpc_json_reverse_transcoder.",
    "envoy.extensions.filters.network.ext_proc.",
    "envoy.extensions.filters.listener.local_ratelimit.",
    "envoy.extensions.http.stateful_session.envelope.",
    "envoy.extensions.http.ext_proc.response_processors.save_processing_response.",
    "envoy.extensions.http.ext_proc.processing_request_modifiers.mapped_attribute_builder.",
    "xds.type.matcher.v3.CelMatcher",
    "xds.type.matcher.v3.HttpAttributesCelMatchInput",
    "envoy.extensions.matching.input_matchers.metadata.",
    "envoy.extensions.matching.input_matchers.runtime_fraction.",
    "envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
    "envoy.extensions.load_balancing_policies.wrr_locality.",
    "envoy.extensions.access_loggers.filters.process_ratelimit.",
    "envoy.extensions.tracers.opentelemetry.samplers.",
)
"""Prefixes of the names of types that no supported version has."""

SINCE = {
    "envoy.extensions.access_loggers.stats.": "1.30",
    "envoy.extensions.filters.http.dynamic_modules.": "1.31",
    "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.": "1.31",
}
"""Prefixes of the names of types, and the first version that has them."""


def is_absent(type_name: str) -> bool:
    """Whether no supported version has the type."""
    return type_name.startswith(ABSENT)


def since(type_name: str) -> str | None:
    """The first version that has the type. None if all have it."""
    return next((first for start, first in SINCE.items() if type_name.startswith(start)), None)


def matching_versions(pattern: str) -> list[str]:
    """The supported versions of Istio that a `proxyVersion` matches; all if it is empty."""
    if len(pattern) > _MAX_PATTERN:
        return []
    try:
        compiled = re.compile(pattern)
    except re.error:
        return []
    return [version for version in VERSIONS if compiled.match(f"{version}.0")]
