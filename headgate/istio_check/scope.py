"""Which objects can harm the request path? The YAML of a mesh has those of other teams too."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping

from headgate.core.contract import HEADER_PREFIX, VERSION_HEADER
from headgate.istio_check.attachments import is_headgates, our_attachments, our_gateways
from headgate.istio_check.clusters import clusters_named
from headgate.istio_check.manifests import Manifest, text
from headgate.istio_check.mesh import ROOT_NAMESPACE, Mesh, full_host, upstream_address
from headgate.istio_check.routing import Route, gateways_of, routes

_PRODUCT = "headgate"
_CHOOSE_WORKLOADS = frozenset(
    {"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", "Sidecar", "Telemetry"}
)
_ROUTES = frozenset({"VirtualService", "HTTPRoute", "GRPCRoute"})


class Scope:
    """The gateways, routes, hosts and namespaces of the request path of one mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._attachments = our_attachments(mesh)
        self._by_object: dict[int, list[Route]] = {}
        for route in routes(mesh):
            self._by_object.setdefault(id(route.manifest), []).append(route)
        self._attached = {
            id(patch.manifest) for attached in self._attachments for patch in attached.patches
        }
        self._hosts = frozenset(self._own_hosts())
        self._namespaces = frozenset(_namespace_of(host) for host in self._hosts) - {""}
        self._known = {f"{each.namespace}/{each.name}" for each in mesh.kind("Gateway")}
        self._gateways = {f"{gateway.namespace}/{gateway.name}" for gateway in our_gateways(mesh)}

    def includes(self, manifest: Manifest) -> bool:
        """Whether a mistake in the object can change what happens to a model's requests."""
        if manifest.name.startswith(_PRODUCT):
            return True
        related: Mapping[str, Callable[[Manifest], bool]] = {
            **dict.fromkeys(_ROUTES, self._is_route),
            "DestinationRule": self._is_destination_rule,
            "EnvoyFilter": self._is_filter,
            "Gateway": self._is_gateway,
        }
        relation = related.get(manifest.kind)
        if relation is not None:
            return relation(manifest)
        if manifest.namespace in self._namespaces:
            return True
        return manifest.kind in _CHOOSE_WORKLOADS and self._is_chosen(manifest)

    def _own_hosts(self) -> Iterator[str]:
        """The hosts of the model servers and of the hooks."""
        for upstream in self._mesh.policy.bases.values():
            yield upstream_address(upstream)[0]
        for of_object in self._by_object.values():
            for route in filter(_reads_our_headers, of_object):
                yield from (each.host for each in route.destinations if each.written)
        for attached in self._attachments:
            for patch in attached.own:
                if patch.adds_ours:
                    yield from clusters_named(patch)

    def _is_chosen(self, manifest: Manifest) -> bool:
        return any(attached.is_chosen_by(manifest) for attached in self._attachments)

    def _is_route(self, manifest: Manifest) -> bool:
        of_object = self._by_object.get(id(manifest), [])
        if any(_reads_our_headers(route) for route in of_object):
            return True
        hosts = {destination.host for route in of_object for destination in route.destinations}
        return bool(hosts & self._hosts) or self._is_at_our_gateway(manifest)

    def _is_at_our_gateway(self, manifest: Manifest) -> bool:
        """Whether the routes are at a gateway that decides, or at none that the YAML has."""
        of_attachments = {attached.namespace for attached in self._attachments}
        named = set(gateways_of(manifest))
        is_lost = (
            bool(named - self._known) and manifest.namespace in of_attachments | self._namespaces
        )
        return is_lost or bool(named & self._gateways)

    def _is_destination_rule(self, manifest: Manifest) -> bool:
        host = full_host(text(manifest.spec.get("host")), manifest.namespace)
        if any(fnmatch.fnmatchcase(own, host) for own in self._hosts):
            return True
        places = {manifest.namespace, _namespace_of(host)}
        return host not in self._mesh.services and bool(places & self._namespaces)

    def _is_filter(self, manifest: Manifest) -> bool:
        return id(manifest) in self._attached or is_headgates(manifest)

    def _is_gateway(self, manifest: Manifest) -> bool:
        return f"{manifest.namespace}/{manifest.name}" in self._gateways


def _reads_our_headers(route: Route) -> bool:
    return any(
        name.startswith(HEADER_PREFIX) or name == VERSION_HEADER for _, name in route.headers
    )


def _namespace_of(host: str) -> str:
    """The namespace of a Service's host, "" for any other host."""
    name, _, rest = host.partition(".")
    namespace, _, domain = rest.partition(".")
    is_service = bool(name) and (domain in ("", "svc") or domain.startswith("svc."))
    return namespace if is_service and namespace != ROOT_NAMESPACE else ""
