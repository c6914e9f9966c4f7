"""The common part of the filters that call Headgate's services."""

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
"""The status if a service does not answer: no request passes without a decision."""

_RETRIES = 2
_RETRY_ON = "connect-failure,refused-stream,reset"
"""Only for a replica that is gone. One that answers, even with an error, is not called again."""
_RETRY_AFTER = timedelta(milliseconds=5)
_LONGEST_PAUSE = HOOK_TIMEOUT
"""Envoy also uses it as the timeout of each try. No try may be abandoned for another: if two
replicas decide about one reservation and Redis fails one of them, it undoes the other's grant."""


def http_filter(name: str, config: betterproto2.Message) -> HttpFilter:
    """One HTTP filter of the chain."""
    return HttpFilter(name=str(name), typed_config=Any.pack(config))


def grpc_service(services: str) -> GrpcService:
    """A gRPC stream to the cluster `services`, which may stay open.

    istiod's cluster names `outbound|PORT|SUBSET|HOST` are not valid as an authority.
    """
    _, _, host = services.rpartition("|")
    authority = "" if host == services else host
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=services, authority=authority))


def hook_service(services: str, timeout: timedelta | None = None) -> GrpcService:
    """A hook's calls to the cluster `services`, within `timeout` including retries.

    A call to a replica that has just died is retried on another replica. Every hook may be called
    twice, because a reservation and its settlement count once by their id. Envoy does not retry a
    call whose answer has begun, so a stream is never replayed from its middle.
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
