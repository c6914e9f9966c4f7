"""Are our EnvoyFilters those that this version of Headgate renders?"""

from collections.abc import Collection, Iterator
from decimal import Decimal

from headgate.istio_check.findings import Finding, MeshRule, finding_at
from headgate.istio_check.manifests import KeyPath
from headgate.istio_check.mesh import Mesh


def drift(
    mesh: Mesh, rendered: list[dict[str, object]], reported: Collection[str]
) -> Iterator[Finding]:
    """Compares the patches of EnvoyFilters of the same name; namespace and selector may differ.

    `rendered` holds the objects of every way to attach and to count. Objects in `reported` have
    findings already, and are left out: their mistakes make them differ.
    """
    for manifest in mesh.kind("EnvoyFilter"):
        variants = [variant for variant in rendered if _name(variant) == manifest.name]
        if not variants or manifest.title in reported:
            continue
        patches = manifest.spec.get("configPatches")
        differences = [_difference(patches, _patches(variant), ()) for variant in variants]
        if None not in differences:
            latest: KeyPath = max((path for path in differences if path is not None), key=_order)
            path: KeyPath = ("spec", "configPatches", *latest)
            message = "this version of Headgate renders something else here"
            remedy = "the output of `headgate render istio`"
            yield finding_at(MeshRule.DRIFT, manifest, path, message, remedy)


def _order(path: KeyPath) -> tuple[int, int]:
    """By patch, then by depth: the variant that differs last is the one that was meant."""
    patch = path[0] if path else 0
    return (patch if isinstance(patch, int) else 0, len(path))


def _name(rendered: dict[str, object]) -> str:
    metadata = rendered["metadata"]
    return str(metadata["name"]) if isinstance(metadata, dict) else ""


def _patches(rendered: dict[str, object]) -> object:
    spec = rendered["spec"]
    return spec["configPatches"] if isinstance(spec, dict) else []


def _difference(value: object, expected: object, path: KeyPath) -> KeyPath | None:
    """The path of the first difference. None if there is none."""
    if isinstance(value, dict) and isinstance(expected, dict):
        for key in [*value, *(key for key in expected if key not in value)]:
            if key not in value or key not in expected:
                return (*path, key)
            if (inner := _difference(value[key], expected[key], (*path, key))) is not None:
                return inner
        return None
    if isinstance(value, list) and isinstance(expected, list):
        for at, (item, expected_item) in enumerate(zip(value, expected, strict=False)):
            if (inner := _difference(item, expected_item, (*path, at))) is not None:
                return inner
        is_same_length = len(value) == len(expected)
        return None if is_same_length else (*path, min(len(value), len(expected)))
    number = float(value) if isinstance(value, Decimal) else value
    return None if number == expected else path
