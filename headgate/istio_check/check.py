"""One report for the policy and the YAML of a mesh together."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from headgate.core.contract import Counting
from headgate.core.errors import OperatorError
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.envoy_filters import SERVICES_CLUSTER, Attach, envoy_filters
from headgate.dataplane.filters import http_filters
from headgate.istio_check.findings import Finding, Report, Rule, found, sorted_findings
from headgate.istio_check.load import load_mesh_config, load_objects, load_policy_document
from headgate.istio_check.mesh import Mesh
from headgate.istio_check.rules import (
    access,
    destinations,
    envoy,
    fields,
    models,
    objects,
    patches,
    providers,
    quotas,
    routes,
    workloads,
)
from headgate.istio_check.rules.drift import drift

RULES: tuple[Callable[[Mesh], Iterator[Finding]], ...] = (
    objects.objects,
    fields.fields,
    models.attachment,
    models.models_and_routes,
    models.versions,
    models.headers,
    models.catch_all,
    models.policy_in_the_mesh,
    routes.weights,
    routes.precedence,
    routes.gateways,
    routes.retries,
    routes.timeouts,
    routes.dropped_filters,
    destinations.destinations,
    destinations.subsets,
    destinations.rule_hosts,
    destinations.connections,
    destinations.mutual_tls,
    providers.providers_named,
    providers.providers_themselves,
    providers.authorization,
    providers.usage_records,
    patches.anchors,
    patches.operations,
    patches.priorities,
    patches.versions,
    patches.referenced,
    patches.selectors,
    patches.names,
    patches.chain,
    envoy.typed_config,
    envoy.extensions,
    envoy.clusters,
    quotas.failure_modes,
    quotas.metadata,
    quotas.ratelimit_domain,
    quotas.descriptors,
    quotas.buffer_limits,
    workloads.metered_once,
    workloads.scalers,
    workloads.statistics,
    access.network_policies,
    access.authorization_policies,
    access.sidecar_egress,
)


def check_files(policy: Path, istio: Path, config: Path | None = None) -> Report:
    """Reads the files and applies every rule. Raises OperatorError where one cannot be read."""
    return check(mesh_of(policy, istio, config))


def mesh_of(policy: Path, istio: Path, config: Path | None = None) -> Mesh:
    """What the files hold. Raises OperatorError where one cannot be read."""
    manifests = tuple(load_objects(istio))
    if not manifests:
        raise OperatorError(f"{istio}: holds no object")
    return Mesh(
        manifests,
        load_policy_document(policy),
        None if config is None else load_mesh_config(config),
        tuple(one.name for one in http_filters(SERVICES_CLUSTER, BODY_LIMIT_BYTES)),
        BODY_LIMIT_BYTES,
    )


def check(mesh: Mesh) -> Report:
    """Applies every rule. Deterministic: findings stand in the order of files and lines."""
    findings = [one for rule in RULES for one in rule(mesh)]
    told = {one.object for one in findings}
    findings += drift(mesh, _rendered(), told)
    if mesh.config is None:
        what = "no mesh configuration was given: extension providers and statistics are not checked"
        write = "--mesh-config FILE"
        findings.append(found(Rule.NOT_CHECKED, mesh.policy.document, (), what, write))
    listed = sorted_findings(findings)
    return Report(listed, _summary(mesh, listed))


@cache
def _rendered() -> list[dict[str, object]]:
    return [
        one for attach in Attach for counting in Counting for one in envoy_filters(attach, counting)
    ]


def _summary(mesh: Mesh, findings: tuple[Finding, ...]) -> str:
    errors = sum(one.severity == "error" for one in findings)
    warnings = len(findings) - errors
    return (
        f"{len(mesh.manifests)} objects and {len(mesh.policy.bases)} base models checked:"
        f" {errors} error{'' if errors == 1 else 's'},"
        f" {warnings} warning{'' if warnings == 1 else 's'}"
    )
