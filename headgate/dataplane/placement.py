"""How Envoy sends a request to the pods that Headgate has chosen for it.

The first pod of the list is an override host, which Envoy takes only if it is healthy. The others
are for retries: the policy `override_host` of the cluster takes them in order, healthy or not. With
no list, or once it is used up, the pod with the fewest requests gets the request.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import (
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HealthCheck,
    HealthCheckHttpHealthCheck,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import LeastRequest
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 import (
    OverrideHost,
    OverrideHostOverrideHostSource,
)
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.google.protobuf import Any

from headgate.core.placement import PLACEMENT, REST
from headgate.dataplane.filters import lua
from headgate.dataplane.hook_calls import http_filter

HBONE = "envoy://connect_originate/"
"""What Istio puts before the address of a pod that it reaches by a tunnel (ambient mode)."""
FAILURES = 3
CHECK_INTERVAL = timedelta(seconds=2)
EJECTED = timedelta(seconds=30)
"""As in the DestinationRules of istio/models."""
_POLICIES = "envoy.load_balancing_policies"


def placer(tunnel: str = "") -> HttpFilter:
    """Reads the list. The last filter before the router, so that no refused request costs it.

    With a `tunnel` pods may be known by their plain address, or with this before it.
    """
    source = f'local TUNNEL = "{tunnel}"\n{lua("placer.lua")}'
    return http_filter("headgate.placer", Lua(default_source_code=DataSource(inline_string=source)))


def override_host() -> LoadBalancingPolicy:
    """The load balancer of a cluster whose requests are placed."""
    rest = MetadataKey(key=PLACEMENT, path=[MetadataKeyPathSegment(key=REST)])
    config = OverrideHost(
        override_host_sources=[OverrideHostOverrideHostSource(metadata=rest)],
        fallback_policy=_policy("least_request", LeastRequest()),
    )
    return _policy("override_host", config)


def health_check(prefix: str) -> HealthCheck:
    """Asks each pod for vLLM's own health: 503 once its engine is dead."""
    return HealthCheck(
        timeout=CHECK_INTERVAL,
        interval=CHECK_INTERVAL,
        no_traffic_interval=CHECK_INTERVAL,  # a minute by default
        unhealthy_threshold=FAILURES - 1,
        healthy_threshold=1,
        http_health_check=HealthCheckHttpHealthCheck(path=f"{prefix}/health"),
    )


def outlier_detection() -> OutlierDetection:
    """Takes a pod out for a while that fails request after request.

    Envoy's own default ejects after 5 answers with 5xx. The renderer cannot name that field.
    """
    return OutlierDetection(
        consecutive_gateway_failure=FAILURES,
        enforcing_consecutive_gateway_failure=100,
        interval=CHECK_INTERVAL,
        base_ejection_time=EJECTED,
        max_ejection_percent=60,
    )


def _policy(name: str, config: OverrideHost | LeastRequest) -> LoadBalancingPolicy:
    extension = TypedExtensionConfig(name=f"{_POLICIES}.{name}", typed_config=Any.pack(config))
    return LoadBalancingPolicy(
        policies=[LoadBalancingPolicyPolicy(typed_extension_config=extension)]
    )
