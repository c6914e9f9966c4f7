"""Do the containers of the model servers run with what the policy says about them?"""

from collections.abc import Iterator

from headgate.core.policy import Model
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh, Service, is_selected, pod_templates, upstream_address
from headgate.istio_check.options import (
    FORCED_USAGE,
    MODEL_LENGTH,
    PRIORITY,
    SCHEDULING,
    SERVED_NAME,
    ServerOptions,
    server_options,
)


def servers(mesh: Mesh) -> Iterator[Finding]:
    """The options of vLLM are those that the models and the fairness of the policy need."""
    is_fair = any(tenant.weight is not None for tenant in mesh.policy.compiled.tenants.values())
    for model in mesh.policy.compiled.models.values():
        if model.base != model.name:
            continue
        service = mesh.services.get(upstream_address(model.upstream)[0])
        for manifest, path, options in servers_of(mesh, service):
            for rule, message, remedy in _faults(model, options, is_fair):
                yield finding_at(rule, manifest, path, message, remedy)


def servers_of(
    mesh: Mesh, service: Service | None
) -> Iterator[tuple[Manifest, KeyPath, ServerOptions]]:
    """Each vLLM behind a service, with the path of its container's arguments."""
    for manifest in mesh.manifests if service is not None else ():
        if service is None or manifest.namespace != service.manifest.namespace:
            continue
        for path, template in pod_templates(manifest):
            if not _is_behind(
                service, manifest, mapping(mapping(template.get("metadata")).get("labels"))
            ):
                continue
            pod = mapping(template.get("spec"))
            for at, container in enumerate(map(mapping, items(pod.get("containers")))):
                options = server_options(container)
                if options is not None:
                    yield manifest, (*path, "spec", "containers", at, "args"), options


def _is_behind(service: Service, manifest: Manifest, labels: dict[str, object]) -> bool:
    """Flagger makes the Services of a Canary itself, for the workload that it names."""
    if service.manifest.kind == "Canary":
        target = mapping(service.manifest.spec.get("targetRef"))
        return (text(target.get("kind")), text(target.get("name"))) == (
            manifest.kind,
            manifest.name,
        )
    return bool(service.selector) and is_selected(service.selector, labels)


def _faults(
    model: Model, options: ServerOptions, is_fair: bool
) -> Iterator[tuple[MeshRule, str, str]]:
    length = options.model_length
    if length is not None and length != model.context_tokens:
        effect = (
            "vLLM refuses requests that the limits hold tokens for"
            if length < model.context_tokens
            else "long requests are held at too few tokens"
        )
        message = f"vLLM takes {length} tokens, but context_tokens of {model.name} is"
        message += f" {model.context_tokens}: {effect}"
        remedy = f"--{MODEL_LENGTH}={model.context_tokens}, or context_tokens: {length}"
        yield MeshRule.CONTEXT_DIFFERS, message, remedy
    if options.is_complete and options.names and model.served_as not in options.names:
        shown = ", ".join(options.names)
        message = f"vLLM serves {shown}, but requests for {model.name} name {model.served_as}: 404"
        remedy = f"--{SERVED_NAME}={model.served_as}, or served_as: {options.names[0]}"
        yield MeshRule.SERVED_NAME_DIFFERS, message, remedy
    if options.is_complete and model.forces_usage and not options.forces_usage:
        message = f"{model.name} has forces_usage, but vLLM reports the usage of a stream only"
        message += " when asked"
        yield MeshRule.USAGE_NOT_FORCED, message, f"--{FORCED_USAGE}, or forces_usage: false"
    if options.is_complete and is_fair and not options.orders_by_priority:
        message = "a tenant has fairness, but vLLM takes the waiting requests of"
        message += f" {model.name} by their arrival"
        remedy = f"--{SCHEDULING}={PRIORITY}, or the component fairness"
        yield MeshRule.SCHEDULING_DIFFERS, message, remedy
