"""Do traces arrive? istiod leaves tracing out of a proxy's configuration without a word."""

from collections.abc import Iterator

from headgate.istio_check.attachments import our_attachments
from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath, Manifest, items, mapping, text
from headgate.istio_check.mesh import Mesh
from headgate.policy.problems import hint

_KIND = "opentelemetry"
_CHOOSERS = ("selector", "targetRef", "targetRefs")


def collectors(mesh: Mesh) -> Iterator[Finding]:
    """The service of each OpenTelemetry provider that traces are sent to is in the YAML."""
    if mesh.config is None:
        return
    used = {name for telemetry in mesh.kind("Telemetry") for name in _providers(telemetry)}
    for path, provider in mesh.providers():
        settings = mapping(provider.get(_KIND))
        host = text(settings.get("service")).rpartition("/")[2]
        if text(provider.get("name")) in used and settings and host not in mesh.services:
            message = f"there is no service {host} here: without it istiod sends no traces"
            message += " and says nothing" + hint(host, mesh.services)
            where: KeyPath = (*path, _KIND, "service")
            remedy = "the host of the collector's Service"
            yield finding_at(MeshRule.TRACING_SERVICE, mesh.config, where, message, remedy)


def selectors(mesh: Mesh) -> Iterator[Finding]:
    """A Telemetry that traces the proxies that decide has a selector, as those beside it have."""
    namespaces = {attached.namespace for attached in our_attachments(mesh)}
    for telemetry in mesh.kind("Telemetry"):
        is_wide = not any(telemetry.spec.get(key) for key in _CHOOSERS)
        if is_wide and telemetry.namespace in namespaces and telemetry.spec.get("tracing"):
            message = "without a selector istiod sends no traces of these pods, and says nothing"
            remedy = "selector: {matchLabels: ...}, as in istio/components/tracing"
            path: KeyPath = ("spec", "tracing")
            yield finding_at(MeshRule.TRACING_SELECTOR, telemetry, path, message, remedy)


def _providers(telemetry: Manifest) -> Iterator[str]:
    for entry in map(mapping, items(telemetry.spec.get("tracing"))):
        for provider in items(entry.get("providers")):
            yield text(mapping(provider).get("name"))
