"""Applies every rule to the policy and the YAML of a mesh together."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from headgate.core.contract import Counting
from headgate.core.errors import OperatorError
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES, MAX_BODY_LIMIT_BYTES
from headgate.dataplane.chains import filter_chain
from headgate.dataplane.envoy_filters import SERVICES_CLUSTER, Attach, envoy_filters
from headgate.istio_check.attachments import SLOT_SETTLER, patches_of
from headgate.istio_check.findings import (
    CheckReport,
    Finding,
    MeshRule,
    Severity,
    finding_at,
    sorted_findings,
)
from headgate.istio_check.load import load_mesh_config, load_objects, load_policy_document
from headgate.istio_check.manifests import Manifest
from headgate.istio_check.mesh import Mesh
from headgate.istio_check.rules import (
    access,
    adapters,
    destinations,
    envoy,
    fields,
    identities,
    intruders,
    management,
    models,
    objects,
    outliers,
    patches,
    placement,
    providers,
    quotas,
    routes,
    servers,
    services,
    tracing,
    workloads,
)
from headgate.istio_check.rules.drift import drift
from headgate.istio_check.rules.quotas import body_limits
from headgate.istio_check.scope import Scope

RULES: tuple[Callable[[Mesh], Iterator[Finding]], ...] = (
    objects.objects,
    fields.fields,
    models.attachment,
    models.models_and_routes,
    models.versions,
    models.headers,
    models.catch_all,
    models.policy_in_the_mesh,
    servers.servers,
    adapters.loaders,
    adapters.pods,
    adapters.callers,
    routes.weights,
    routes.precedence,
    routes.gateways,
    routes.retries,
    routes.timeouts,
    routes.hosts_outside,
    routes.dropped_filters,
    destinations.destinations,
    destinations.subsets,
    destinations.rule_hosts,
    destinations.connections,
    destinations.mutual_tls,
    outliers.outliers,
    placement.conflicts,
    placement.missing,
    providers.providers_named,
    providers.providers_themselves,
    providers.authorization,
    providers.usage_records,
    tracing.collectors,
    tracing.selectors,
    patches.anchors,
    patches.operations,
    patches.priorities,
    patches.versions,
    patches.referenced,
    patches.selectors,
    patches.names,
    patches.chain,
    intruders.bodies_before_the_key,
    intruders.filters_disabled,
    identities.request_authentications,
    identities.checked_headers,
    envoy.typed_config,
    envoy.extensions,
    envoy.clusters,
    quotas.failure_modes,
    quotas.metadata,
    quotas.ratelimit_domain,
    quotas.descriptors,
    quotas.buffer_limits,
    quotas.answer_cache,
    workloads.metered_once,
    workloads.scalers,
    workloads.statistics,
    access.network_policies,
    access.authorization_policies,
    access.sidecar_egress,
    services.files,
    services.secrets,
    services.ways_out,
    management.started,
    management.sidecar_ports,
    management.callers,
    management.doors,
    management.browsers,
)


def check_files(policy: Path, istio: Path, config: Path | None = None) -> CheckReport:
    """Reads the files and applies every rule. Raises OperatorError if a file cannot be read."""
    return check(mesh_of(policy, istio, config))


def mesh_of(policy: Path, istio: Path, config: Path | None = None) -> Mesh:
    """The content of the files. Raises OperatorError if a file cannot be read."""
    manifests = tuple(load_objects(istio))
    if not manifests:
        raise OperatorError(f"{istio}: holds no object")
    return Mesh(
        manifests=manifests,
        policy=load_policy_document(policy),
        config=None if config is None else load_mesh_config(config),
        chain=chain_of(manifests),
        largest_body_bytes=MAX_BODY_LIMIT_BYTES,
    )


def chain_of(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """The steps of the request path that the EnvoyFilters are for, in their order."""
    filters = filter_chain(SERVICES_CLUSTER, BODY_LIMIT_BYTES, _path_of(manifests))
    return tuple(http_filter.name for http_filter in filters)


def _path_of(manifests: Sequence[Manifest]) -> HookPath:
    """The lean path if an EnvoyFilter adds the filter that only this path has."""
    filters = (manifest for manifest in manifests if manifest.kind == "EnvoyFilter")
    added = (patch.name for one in filters for patch in patches_of(one) if patch.adds)
    is_lean = SLOT_SETTLER in added
    return HookPath.LEAN if is_lean else HookPath.STANDARD


def check(mesh: Mesh) -> CheckReport:
    """Applies every rule. Deterministic: findings are in the order of files and lines."""
    findings = [finding for rule in RULES for finding in rule(mesh)]
    reported = {finding.object for finding in findings}
    limits = sorted({BODY_LIMIT_BYTES, *body_limits(mesh)})
    rendered = [manifest for limit in limits for manifest in _rendered(limit)]
    findings += drift(mesh, rendered, reported)
    if mesh.config is None:
        message = "without a mesh configuration, extension providers and statistics are not checked"
        remedy = "--mesh-config FILE"
        document = mesh.policy.document
        findings.append(finding_at(MeshRule.NOT_CHECKED, document, (), message, remedy))
    in_order = sorted_findings(_without_other_teams(mesh, findings))
    return CheckReport(in_order, _summary(mesh, in_order))


def _without_other_teams(mesh: Mesh, findings: list[Finding]) -> list[Finding]:
    """The findings about objects that the request path uses, the policy and the configuration."""
    scope = Scope(mesh)
    places: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for manifest in mesh.manifests:
        places[scope.includes(manifest)].add((os.path.normpath(manifest.file), manifest.title))
    others = places[False] - places[True]
    return [finding for finding in findings if (finding.file, finding.object) not in others]


_WAYS = (
    (HookPath.STANDARD, Counting.PROXY),
    (HookPath.STANDARD, Counting.EXTPROC),
    (HookPath.LEAN, Counting.PROXY),
)
"""The ways to ask the services and to count that go together."""


@cache
def _rendered(body_limit_bytes: int) -> list[dict[str, object]]:
    return [
        manifest
        for attach in Attach
        for path, counting in _WAYS
        for manifest in envoy_filters(attach, counting, body_limit_bytes, path)
    ]


def _summary(mesh: Mesh, findings: tuple[Finding, ...]) -> str:
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    warnings = len(findings) - errors
    return (
        f"{len(mesh.manifests)} objects and {len(mesh.policy.bases)} base models checked:"
        f" {errors} error{'' if errors == 1 else 's'},"
        f" {warnings} warning{'' if warnings == 1 else 's'}"
    )
