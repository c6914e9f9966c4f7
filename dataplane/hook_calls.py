"""What the filters that call our services have in common."""

from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import GrpcService, GrpcServiceEnvoyGrpc
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any

HOOK_TIMEOUT = timedelta(seconds=2)
UNAVAILABLE = HttpStatus(code=StatusCode.ServiceUnavailable)
"""What a client gets when a service does not answer: nothing passes without a decision."""


def http_filter(name: str, config: betterproto2.Message) -> HttpFilter:
    """One HTTP filter of the chain."""
    return HttpFilter(name=str(name), typed_config=Any.pack(config))


def grpc_service(services: str, timeout: timedelta | None = None) -> GrpcService:
    """A gRPC call to the cluster `services`. Without a timeout the stream may stay open."""
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=services), timeout=timeout)
