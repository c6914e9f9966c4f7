"""Are our EnvoyFilters those that this version of Headgate renders?"""

from collections.abc import Collection, Iterator
from decimal import Decimal

from headgate.istio_check.findings import Finding, Rule, found
from headgate.istio_check.manifests import KeyPath
from headgate.istio_check.mesh import Mesh


def drift(
    mesh: Mesh, rendered: list[dict[str, object]], known: Collection[str]
) -> Iterator[Finding]:
    """Compares the patches of EnvoyFilters by their names; namespaces and selectors may differ.

    `rendered` are the objects of every way to attach and to count. Objects in `known` have been
    told already: whatever is wrong with them makes them differ.
    """
    for one in mesh.kind("EnvoyFilter"):
        alike = [each for each in rendered if _name(each) == one.name]
        if not alike or one.title in known:
            continue
        mine = one.spec.get("configPatches")
        differences = [_difference(mine, _patches(each), ()) for each in alike]
        if None not in differences:
            path: KeyPath = max((each for each in differences if each is not None), key=len)
            what = "this is not what this version of Headgate renders"
            write = "the output of `headgate render istio`"
            yield found(Rule.DRIFT, one, ("spec", "configPatches", *path), what, write)


def _name(rendered: dict[str, object]) -> str:
    metadata = rendered["metadata"]
    return str(metadata["name"]) if isinstance(metadata, dict) else ""


def _patches(rendered: dict[str, object]) -> object:
    spec = rendered["spec"]
    return spec["configPatches"] if isinstance(spec, dict) else []


def _difference(mine: object, theirs: object, path: KeyPath) -> KeyPath | None:
    """The path of the first difference. None where there is none."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            if key not in mine or key not in theirs:
                return (*path, key)
            if (inner := _difference(mine[key], theirs[key], (*path, key))) is not None:
                return inner
        return None
    if isinstance(mine, list) and isinstance(theirs, list):
        for at, (left, right) in enumerate(zip(mine, theirs, strict=False)):
            if (inner := _difference(left, right, (*path, at))) is not None:
                return inner
        return None if len(mine) == len(theirs) else (*path, min(len(mine), len(theirs)))
    left = float(mine) if isinstance(mine, Decimal) else mine
    return None if left == theirs else path
