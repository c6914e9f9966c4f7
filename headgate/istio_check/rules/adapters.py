"""Can Headgate alone load adapters on the pods of the models that have a pool in the policy?"""

from collections.abc import Iterator

from headgate.core.adapter_pools import AdapterPool
from headgate.core.policy import Model
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.lora_options import (
    ENABLE,
    LISTED,
    LIVE,
    RANK,
    UPDATING,
    LoraOptions,
)
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, Service, is_selected, upstream_address
from headgate.istio_check.program import programs
from headgate.istio_check.rules.access import admits
from headgate.istio_check.rules.servers import servers_of

_IN_CLUSTER = ".svc.cluster.local"
_LOADS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
_COMPONENT = "the component adapters"


def loaders(mesh: Mesh) -> Iterator[Finding]:
    """vLLM loads what Headgate asks for, as much as the pool says, and nothing by itself."""
    for model, pool in mesh.policy.pools:
        seen = set()
        for service in _services(mesh, model, pool):
            for manifest, path, options in servers_of(mesh, service):
                if manifest.title in seen:
                    continue
                seen.add(manifest.title)
                for fault in _faults(model, pool, options.loras, is_complete=options.is_complete):
                    yield finding_at(fault[0], manifest, path, *fault[1:])


def pods(mesh: Mesh) -> Iterator[Finding]:
    """The name of a pool's pods leads to each pod, and a proxy knows both ports that are called."""
    for model, pool in mesh.policy.pools:
        for at, (host, number) in enumerate(_named(pool)):
            path: KeyPath = ("models", model.name, "adapter_pool", "pods", at)
            service = mesh.services.get(host)
            if host.endswith(_IN_CLUSTER) and service is None:
                message = f"there is no Service {host}"
            elif service is None or service.manifest.kind != "Service":
                continue
            elif service.manifest.spec.get("clusterIP") != "None":
                message = f"{host} has one address for all pods, and each pod must be reached"
            elif missing := {number, pool.agent_port} - {port.number for port in service.ports}:
                shown = ", ".join(map(str, sorted(missing)))
                message = f"{host} lacks the port {shown}, so a sidecar speaks clear text to it"
            else:
                continue
            remedy = f"a headless Service with the ports {number} and {pool.agent_port}"
            yield finding_at(MeshRule.ADAPTER_PODS, mesh.policy.document, path, message, remedy)


def callers(mesh: Mesh) -> Iterator[Finding]:
    """Headgate reaches vLLM's load paths and the agent, and nobody else does."""
    namespaces = {program.manifest.namespace for program in programs(mesh)}
    for _, pool in mesh.policy.pools:
        for host, number in _named(pool):
            service = mesh.services.get(host)
            if service is None or not service.selector:
                continue
            policies = list(_choosing(mesh, service, "ALLOW"))
            for port in (number, pool.agent_port):
                yield from _reached(service, policies, port, sorted(namespaces))
            yield from _open(mesh, service, number, pool.agent_port)


def _faults(
    model: Model, pool: AdapterPool, loras: LoraOptions, *, is_complete: bool
) -> Iterator[tuple[MeshRule, str, str]]:
    for loader in loras.loaders:
        message = f"vLLM loads adapters by {loader}, and Headgate those of {model.name}"
        remedy = f"remove {loader}, or adapter_pool of {model.name}"
        yield MeshRule.ADAPTERS_LOADED_TWICE, message, remedy
    if not is_complete:
        return
    if not loras.is_enabled:
        message = f"{model.name} has an adapter_pool, but vLLM takes no adapters"
        yield MeshRule.ADAPTERS_NOT_LOADED, message, f"--{ENABLE}"
    if not loras.is_updated:
        message = f"{model.name} has an adapter_pool, but vLLM has no paths that load adapters"
        yield MeshRule.ADAPTERS_NOT_LOADED, message, f'{UPDATING}: "1", or {_COMPONENT}'
    wanted = {LIVE: ("live", pool.live), LISTED: ("listed", pool.listed)}
    for option, (field, number) in {**wanted, RANK: ("max_rank", pool.max_rank)}.items():
        size = loras.sizes[option]
        if size is not None and size < number:
            message = f"vLLM has --{option} {size}, but {field} of {model.name} is {number}"
            remedy = f"--{option}={number}, or {field}: {size}"
            yield MeshRule.ADAPTER_SIZES, message, remedy


def _services(mesh: Mesh, model: Model, pool: AdapterPool) -> Iterator[Service]:
    hosts = [upstream_address(model.upstream)[0], *(host for host, _ in _named(pool))]
    for host in dict.fromkeys(hosts):
        if service := mesh.services.get(host):
            yield service


def _named(pool: AdapterPool) -> list[tuple[str, int]]:
    parts = (pod.rpartition(":") for pod in pool.pods)
    return [(host, int(port)) for host, _, port in parts]


def _choosing(mesh: Mesh, service: Service, action: str) -> Iterator[Manifest]:
    """The policies with this action that choose the pods behind a service."""
    for policy in mesh.kind("AuthorizationPolicy"):
        labels = mapping(policy.spec.get("selector")).get("matchLabels")
        is_near = policy.namespace == service.manifest.namespace
        is_meant = is_near and policy.spec.get("action", "ALLOW") == action
        if is_meant and any(is_selected(labels, pods) for pods in mesh.labels_of(service)):
            yield policy


def _reached(
    service: Service, policies: list[Manifest], port: int, namespaces: list[str]
) -> Iterator[Finding]:
    for namespace in namespaces:
        if policies and not any(admits(policy, port, namespace) for policy in policies):
            message = f"calls from {namespace} to port {port} of {service.host} get 403"
            remedy = f"a rule for the service account of the services, as in {_COMPONENT}"
            yield finding_at(
                MeshRule.AUTHORIZATION_POLICY, policies[0], ("spec", "rules"), message, remedy
            )


def _open(mesh: Mesh, service: Service, number: int, agent_port: int) -> Iterator[Finding]:
    """An ALLOW policy of anybody can open a port; only a DENY policy keeps it shut."""
    wanted = {number: frozenset(_LOADS), agent_port: frozenset[str]()}
    denied = list(_operations(mesh, service))
    for port, paths in wanted.items():
        if not any(_shuts(operation, port, paths) for operation in denied):
            what = "load adapters" if paths else "call the agents"
            message = f"no DENY policy keeps others than Headgate from port {port}, so an ALLOW"
            message += f" policy may let them {what}"
            yield finding_at(
                MeshRule.ADAPTERS_OPEN, service.manifest, ("spec", "ports"), message, _COMPONENT
            )


def _operations(mesh: Mesh, service: Service) -> Iterator[dict[str, object]]:
    """The operations that are denied to all but some principals, on the pods behind a service."""
    for policy in _choosing(mesh, service, "DENY"):
        for rule in map(mapping, items(policy.spec.get("rules"))):
            sources = [mapping(mapping(one).get("source")) for one in items(rule.get("from"))]
            if sources and all(source.get("notPrincipals") for source in sources):
                yield from (mapping(mapping(one).get("operation")) for one in items(rule.get("to")))


def _shuts(operation: dict[str, object], port: int, paths: frozenset[str]) -> bool:
    denied = {text(path) for path in items(operation.get("paths"))}
    is_whole = set(operation) == {"ports"} or (bool(paths) and paths <= denied)
    return is_whole and str(port) in items(operation.get("ports"))
