"""What the filters that call our services have in common."""

from datetime import timedelta

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import (
    BackoffStrategy,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any

HOOK_TIMEOUT = timedelta(seconds=2)
UNAVAILABLE = HttpStatus(code=StatusCode.ServiceUnavailable)
"""What a client gets when a service does not answer: nothing passes without a decision."""

_RETRIES = 2
_RETRY_ON = "connect-failure,refused-stream,reset"
"""Only a replica that is gone: one that answers, with an error too, is not asked again."""
_RETRY_AFTER = timedelta(milliseconds=5)
_LONGEST_PAUSE = HOOK_TIMEOUT
"""Envoy takes it for the timeout of each try, too. No try may be given up for another one: of
two replicas that decide about one reservation, one that Redis fails undoes what the other grants.
"""


def http_filter(name: str, config: betterproto2.Message) -> HttpFilter:
    """One HTTP filter of the chain."""
    return HttpFilter(name=str(name), typed_config=Any.pack(config))


def grpc_service(services: str) -> GrpcService:
    """A gRPC stream to the cluster `services` that may stay open.

    istiod names clusters `outbound|PORT|SUBSET|HOST`, which is no host to call a server by.
    """
    _, _, host = services.rpartition("|")
    authority = "" if host == services else host
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=services, authority=authority))


def hook_service(services: str, timeout: timedelta | None = None) -> GrpcService:
    """A hook's calls to the cluster `services`: within `timeout`, retries included.

    A call that meets a replica which has just died goes to another one. Any hook may be called
    twice: a reservation and its settlement count once by their id. Envoy tries no call again whose
    answer has begun, so that a stream is never replayed from its middle.
    """
    service = grpc_service(services)
    service.timeout = timeout
    service.retry_policy = RetryPolicy(
        retry_on=_RETRY_ON,
        num_retries=_RETRIES,
        retry_back_off=BackoffStrategy(base_interval=_RETRY_AFTER, max_interval=_LONGEST_PAUSE),
        retry_host_predicate=[
            RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=Any.pack(PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=5,
    )
    return service
