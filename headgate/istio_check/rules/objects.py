"""Can the other rules read every object?"""

from collections.abc import Iterator

from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.mesh import Mesh

NEED_A_SPEC = frozenset({"EnvoyFilter", "Gateway", "HTTPRoute", "Service", "VirtualService"})


def objects(mesh: Mesh) -> Iterator[Finding]:
    """Each object has a name, and a specification that is a mapping."""
    for manifest in mesh.manifests:
        if not manifest.name:
            message, remedy = "the object has no name", "metadata: {name: ...}"
            yield finding_at(MeshRule.NOT_AN_OBJECT, manifest, ("metadata",), message, remedy)
        if "spec" in manifest.value and not isinstance(manifest.value["spec"], dict):
            message, remedy = "spec is not a mapping", "a mapping, with its keys indented"
            yield finding_at(MeshRule.NOT_AN_OBJECT, manifest, ("spec",), message, remedy)
        if manifest.kind in NEED_A_SPEC and "spec" not in manifest.value:
            message = f"a {manifest.kind} without a spec does nothing"
            yield finding_at(MeshRule.NOT_AN_OBJECT, manifest, (), message, "spec: ...")
