"""The static part of the one-box Envoy: listener, the services' cluster, admin."""

from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    ConfigSource,
    Node,
    PathConfigSource,
    Pipe,
)

from dataplane.box import OneBox, render, replace_file
from dataplane.listener import listener
from dataplane.routes import write_dynamic
from dataplane.tls import write_certificate
from dataplane.upstream import services_cluster

SERVICES = "headgate_services"


def bootstrap(box: OneBox) -> Bootstrap:
    """The bootstrap. Model clusters and routes come from files that Envoy follows."""
    return Bootstrap(
        node=Node(id="headgate", cluster="headgate"),
        admin=Admin(address=Address(pipe=Pipe(path=str(box.admin_socket), mode=0o600))),
        static_resources=BootstrapStaticResources(
            listeners=[listener(box, SERVICES)],
            clusters=[services_cluster(SERVICES, box.services_socket)],
        ),
        dynamic_resources=BootstrapDynamicResources(
            cds_config=ConfigSource(
                path_config_source=PathConfigSource(path=str(box.clusters_file)),
                resource_api_version=ApiVersion.V3,
            )
        ),
    )


def write_bootstrap(box: OneBox) -> None:
    """Writes everything that Envoy needs to start. Raises BadUpstream."""
    box.folder.mkdir(parents=True, exist_ok=True)
    write_dynamic(box, box.upstreams)
    if box.certificate is not None:
        write_certificate(box, box.certificate)
    replace_file(box.bootstrap_file, render(bootstrap(box)))
