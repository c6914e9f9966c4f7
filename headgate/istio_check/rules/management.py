"""Is the management API served, at a door of its own, and for nobody else?"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from headgate.istio_check.attachments import our_attachments, our_gateways
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping
from headgate.istio_check.mesh import Mesh, is_selected
from headgate.istio_check.program import Api, apis, ingress_ports, programs, sidecars
from headgate.istio_check.routing import Route, gateways_of, routes
from headgate.istio_check.rules.access import admits

_TLS = ("--api-tls-cert", "--api-tls-key")


def started(mesh: Mesh) -> Iterator[Finding]:
    """The program takes its options, and the mesh can reach the API."""
    for api in apis(mesh):
        options = api.program.options
        if "--database" not in options:
            message, remedy = "the API needs a database", "the component database"
        elif not api.is_local and not all(name in options for name in _TLS):
            message = f"the program refuses to serve {api.option.value} in clear text"
            remedy = "--api=127.0.0.1:9003 behind a Sidecar, or --api-tls-cert and --api-tls-key"
        elif not api.ports:
            message = f"no Sidecar passes calls on to {api.option.value}: nobody reaches the API"
            remedy = "a Sidecar as istio/components/api/sidecar.yaml"
        else:
            continue
        rule = MeshRule.API_NOT_SERVED
        yield finding_at(rule, api.program.manifest, api.option.path, message, remedy)


def sidecar_ports(mesh: Mesh) -> Iterator[Finding]:
    """A Sidecar that names ports names all of them."""
    for program in programs(mesh):
        services = [each for each in mesh.services.values() if program.is_behind(each)]
        served = {port.number for service in services for port in service.ports}
        for sidecar in sidecars(mesh, program):
            taken = ingress_ports(sidecar)
            for number in sorted(served - taken.keys()) if taken else ():
                message = f"port {number} is not among the ports, so its protocol is not known"
                path: KeyPath = ("spec", "ingress")
                remedy = f"an entry for port {number}"
                yield finding_at(MeshRule.SIDECAR_INGRESS, sidecar, path, message, remedy)


def callers(mesh: Mesh) -> Iterator[Finding]:
    """The services let the API's own gateway call it, and not those of the data path."""
    data_path = sorted({attached.namespace for attached in our_attachments(mesh)})
    for api in apis(mesh):
        allowing = [
            policy
            for policy in mesh.kind("AuthorizationPolicy")
            if policy.spec.get("action", "ALLOW") == "ALLOW" and api.program.is_chosen_by(policy)
        ]
        if not allowing:
            message = "without an AuthorizationPolicy every program of the mesh may call the API"
            remedy = "istio/components/api/authorizationpolicy.yaml"
            rule = MeshRule.API_OPEN
            yield finding_at(rule, api.program.manifest, api.option.path, message, remedy)
        for policy in allowing:
            for number in sorted(api.ports):
                for namespace in data_path:
                    if admits(policy, number, namespace):
                        message = f"proxies of the data path in {namespace} may call the API"
                        remedy = "rules with the ports that each caller needs"
                        where: KeyPath = ("spec", "rules")
                        yield finding_at(MeshRule.API_OPEN, policy, where, message, remedy)


def doors(mesh: Mesh) -> Iterator[Finding]:
    """The API has a Gateway of its own, which says who may reach it and repeats nothing."""
    data_path = {f"{gateway.namespace}/{gateway.name}" for gateway in our_gateways(mesh)}
    gateways = {f"{each.namespace}/{each.name}": each for each in mesh.kind("Gateway", "istio.io")}
    for api in apis(mesh):
        for route in routes(mesh):
            if not _leads_to(mesh, route, api):
                continue
            names = set(gateways_of(route.manifest))
            if names & data_path:
                message = "clients of the data path reach the management API"
                remedy = "a Gateway of its own, as istio/components/api/gateway.yaml"
                rule = MeshRule.API_AT_THE_DOOR
                yield finding_at(rule, route.manifest, route.path, message, remedy)
            if mapping(route.body.get("retries")).get("attempts") != 0:
                message = "Istio's default repeats a 503, after which a change may have been made"
                remedy = "retries: {attempts: 0}"
                yield finding_at(MeshRule.API_RETRIES, route.manifest, route.path, message, remedy)
            for name in sorted(names & gateways.keys() - data_path):
                yield from _door(mesh, gateways[name])


def browsers(mesh: Mesh) -> Iterator[Finding]:
    """The program knows the address of browsers: it takes their changes from no other."""
    for api in apis(mesh):
        options = api.program.options
        named = options.get("--api-url")
        hosts = sorted(
            {
                str(host)
                for route in routes(mesh)
                if _leads_to(mesh, route, api)
                for field in ("hosts", "hostnames")
                for host in items(route.manifest.spec.get(field))
            }
        )
        own = "" if named is None else urlsplit(named.value).hostname
        if hosts and own not in hosts:
            message = f"browsers come to {', '.join(hosts)}, and their changes are refused there"
            remedy = f"--api-url=https://{hosts[0]}"
            path = (api.option if named is None else named).path
            yield finding_at(MeshRule.API_URL, api.program.manifest, path, message, remedy)


def _leads_to(mesh: Mesh, route: Route, api: Api) -> bool:
    for destination in route.destinations:
        service = mesh.services.get(destination.host)
        if service is not None and api.program.is_behind(service):
            ports = {port.number for port in service.ports}
            if (destination.port in api.ports) or (not destination.port and ports <= api.ports):
                return True
    return False


def _door(mesh: Mesh, gateway: Manifest) -> Iterator[Finding]:
    pods = mapping(gateway.spec.get("selector"))
    allowing = [
        policy
        for policy in mesh.kind("AuthorizationPolicy")
        if policy.namespace == gateway.namespace
        and policy.spec.get("action", "ALLOW") == "ALLOW"
        and is_selected(mapping(policy.spec.get("selector")).get("matchLabels"), pods)
    ]
    if not allowing:
        message = "everybody who reaches this Gateway reaches the management API"
        remedy = "istio/components/api/gateway-authorizationpolicy.yaml"
        yield finding_at(MeshRule.API_DOOR_OPEN, gateway, (), message, remedy)
