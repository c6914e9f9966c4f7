"""Can Envoy send requests to the pods that Headgate chooses?

Source: Envoy 1.40 refuses a cluster with `load_balancing_policy` and with parts of
`common_lb_config`. istiod 1.31 writes these for `failover`, `failoverPriority` and `distribute`.
"""

from collections.abc import Iterator

from headgate.istio_check.attachments import all_patches, our_attachments
from headgate.istio_check.clusters import strings
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping
from headgate.istio_check.mesh import Mesh
from headgate.istio_check.routing import routes

_PLACER = "headgate.placer"
_LOCALITIES = ("failover", "failoverPriority", "distribute")
_PARTIAL = (
    "consistent_hashing_lb_config",
    "locality_weighted_lb_config",
    "zone_aware_lb_config",
)
_LIST = "headgate.placement"
"""The metadata in which Envoy's load balancer finds the rest of the list."""
_CONFLICT = "Envoy refuses a cluster that has this beside the list of pods, and keeps the old one"
_REMOVE = "remove it, or remove the service from `headgate render placement`"


def conflicts(mesh: Mesh) -> Iterator[Finding]:
    """A cluster whose pods Headgate chooses has no other rule for choosing them."""
    placed = _placed(mesh)
    for host in sorted(placed):
        for rule in mesh.destination_rules.get(host, []):
            for path in _localities(rule):
                yield finding_at(MeshRule.PLACEMENT_CONFLICT, rule, path, _CONFLICT, _REMOVE)
    for patch in all_patches(mesh):
        common = mapping(patch.value.get("common_lb_config"))
        for key in _PARTIAL:
            if patch.apply_to == "CLUSTER" and patch.service in placed and key in common:
                at: KeyPath = (*patch.path, "patch", "value", "common_lb_config", key)
                yield finding_at(
                    MeshRule.PLACEMENT_CONFLICT, patch.manifest, at, _CONFLICT, _REMOVE
                )


def missing(mesh: Mesh) -> Iterator[Finding]:
    """Envoy reads the list of each model that has pods in the policy."""
    placed = _placed(mesh)
    has_placer = any(patch.adds and patch.name == _PLACER for patch in all_patches(mesh))
    for model in mesh.policy.placed:
        hosts = {
            destination.host
            for route in routes(mesh)
            if model in route.models
            and not (route.versions and route.versions <= mesh.policy.unplaced(model))
            for destination in route.destinations
        }
        if not has_placer or hosts - placed:
            message, remedy = _missing(mesh, hosts)
            document = mesh.policy.document
            yield finding_at(
                MeshRule.PLACEMENT_MISSING, document, ("models", model), message, remedy
            )


def _missing(mesh: Mesh, hosts: set[str]) -> tuple[str, str]:
    """The message and the remedy."""
    attached = our_attachments(mesh)
    if attached and all(
        one.contexts == {"SIDECAR_INBOUND"} and not one.targets for one in attached
    ):
        message = "has pods, but sidecars of the pods decide, when Envoy has chosen the pod already"
        return message, "no pods here, or the component gateway or waypoint"
    message = "has pods, but no EnvoyFilter sends requests to those that Headgate chooses"
    services = ", ".join(sorted(hosts)) or "its Service"
    return message, f"what `headgate render placement` prints for {services}"


def _placed(mesh: Mesh) -> set[str]:
    """The hosts whose clusters read the list."""
    return {
        patch.service
        for patch in all_patches(mesh)
        if any(key == "key" and text == _LIST for _, key, text in strings(patch.value))
        and patch.apply_to == "CLUSTER"
    }


def _localities(rule: Manifest) -> Iterator[KeyPath]:
    """The paths of the settings that choose between regions, of the whole rule and of subsets."""
    policies: list[tuple[KeyPath, object]] = [
        (("spec", "trafficPolicy"), rule.spec.get("trafficPolicy"))
    ]
    for at, subset in enumerate(map(mapping, items(rule.spec.get("subsets")))):
        policies.append((("spec", "subsets", at, "trafficPolicy"), subset.get("trafficPolicy")))
    for path, policy in policies:
        setting = mapping(mapping(mapping(policy).get("loadBalancer")).get("localityLbSetting"))
        for key in _LOCALITIES:
            if key in setting:
                yield (*path, "loadBalancer", "localityLbSetting", key)
