"""Is every object one that the other rules can read?"""

from collections.abc import Iterator

from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.mesh import Mesh

READ = frozenset({"EnvoyFilter", "Gateway", "HTTPRoute", "Service", "VirtualService"})
"""Kinds that mean nothing without a specification."""


def objects(mesh: Mesh) -> Iterator[Finding]:
    """Each has a name, and a specification that is a mapping."""
    for one in mesh.manifests:
        if not one.name:
            what = "the object has no name"
            yield found(Rule.NOT_AN_OBJECT, one, ("metadata",), what, "metadata: {name: ...}")
        if "spec" in one.value and not isinstance(one.value["spec"], dict):
            what = "spec is no mapping"
            yield found(Rule.NOT_AN_OBJECT, one, ("spec",), what, "a mapping, its keys indented")
        if one.kind in READ and "spec" not in one.value:
            what = f"a {one.kind} without a spec does nothing"
            yield found(Rule.NOT_AN_OBJECT, one, (), what, "spec: ...")
