"""The static configuration of the one-box Envoy: services' cluster, admin, files to follow."""

from collections.abc import Sequence
from pathlib import Path

from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
    LayeredRuntime,
)
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    ConfigSource,
    Node,
    PathConfigSource,
    Pipe,
)
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import (
    DownstreamConnectionsConfig,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.google.protobuf import Any

from headgate.dataplane.box import OneBox, render, replace_file
from headgate.dataplane.listener import listener, log_keeper
from headgate.dataplane.routes import write_dynamic
from headgate.dataplane.tls import write_certificate
from headgate.dataplane.tracing import batches, collector
from headgate.dataplane.upstream import services_cluster

SERVICES = "headgate_services"


def bootstrap(box: OneBox) -> Bootstrap:
    """The bootstrap. Envoy reads listeners, clusters and routes from files and follows changes.

    Envoy could not remove a listener of the bootstrap, and its end would then lose log entries.
    """
    return Bootstrap(
        node=Node(id="headgate", cluster="headgate"),
        admin=Admin(
            address=Address(pipe=Pipe(path=str(box.admin_socket), mode=0o600)),
            ignore_global_conn_limit=True,
        ),
        overload_manager=_overload_manager(box.max_connections),
        layered_runtime=None if box.tracing is None else LayeredRuntime(layers=[batches()]),
        static_resources=BootstrapStaticResources(clusters=_static_clusters(box)),
        dynamic_resources=BootstrapDynamicResources(
            lds_config=_followed(box.listeners_file), cds_config=_followed(box.clusters_file)
        ),
    )


def _static_clusters(box: OneBox) -> list[Cluster]:
    services = services_cluster(SERVICES, box.services_sockets)
    return [services] if box.tracing is None else [services, collector(box.tracing)]


def _followed(file: Path) -> ConfigSource:
    return ConfigSource(
        path_config_source=PathConfigSource(path=str(file)), resource_api_version=ApiVersion.V3
    )


def _overload_manager(max_connections: int) -> OverloadManager:
    """Bounds the file descriptors and the memory that clients' connections can use."""
    connections = ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections",
        typed_config=Any.pack(
            DownstreamConnectionsConfig(max_active_downstream_connections=max_connections)
        ),
    )
    return OverloadManager(resource_monitors=[connections])


def write_bootstrap(box: OneBox) -> None:
    """Writes all files that Envoy needs to start. Raises BadUpstream."""
    box.folder.mkdir(parents=True, exist_ok=True)
    write_dynamic(box, box.upstreams, box.versions, box.pods, box.spares)
    if box.certificate is not None:
        write_certificate(box, box.certificate)
    _write_listeners(box, [listener(box, SERVICES), log_keeper(SERVICES)])
    replace_file(box.bootstrap_file, render(bootstrap(box)))


def close_door(box: OneBox) -> None:
    """Makes a running Envoy end every connection and stream of clients at once, and log them."""
    _write_listeners(box, [log_keeper(SERVICES)])


def _write_listeners(box: OneBox, listeners: Sequence[Listener]) -> None:
    resources = [Any.pack(one) for one in listeners]
    replace_file(box.listeners_file, render(DiscoveryResponse(resources=resources)))
