"""Objects of Kubernetes' own kinds fit its schemas, strictly: a misspelt key is a mistake."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from headgate.istio_check.kustomize import build
from headgate.istio_check.manifests import Manifest, read_manifests

ISTIO = Path(__file__).parents[2] / "istio"
OLDEST, NEWEST = "1.32", "1.36"
"""What Istio 1.31 supports."""
FOLDERS = sorted(
    path.parent.relative_to(ISTIO).as_posix()
    for path in ISTIO.glob("*/*/kustomization.yaml")
    if path.parent.parent.name in ("overlays", "models")
)


def own(folder: str) -> list[dict[str, Any]]:
    """The objects of Kubernetes' own kinds."""
    return [
        json.loads(json.dumps(manifest.value, default=float))
        for manifest in build(ISTIO / folder)
        if is_own(manifest)
    ]


def is_own(manifest: Manifest) -> bool:
    """Groups without a dot, and two of `*.k8s.io`."""
    return "." not in manifest.group or manifest.group in (
        "networking.k8s.io",
        "rbac.authorization.k8s.io",
    )


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", FOLDERS)
def test_objects_fit_the_schema(folder: str, version: str) -> None:
    objects = own(folder)

    assert objects
    for value in objects:
        kubernetes_validate.validate(value, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_objects_that_components_bring_fit_the_schema(version: str) -> None:
    kinds = set()
    for kustomization in sorted((ISTIO / "components").glob("**/kustomization.yaml")):
        folder = kustomization.parent
        (whole,) = read_manifests(kustomization, named=False)
        for name in whole.value.get("resources", []):
            for manifest in filter(is_own, read_manifests(folder / name)):
                kinds.add(manifest.kind)
                plain = json.loads(json.dumps(manifest.value, default=float))
                kubernetes_validate.validate(plain, version, strict=True)

    assert kinds == {"ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service"}


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replica": 3}},
        {"spec": {"replicas": "three"}},
        {"spec": {"template": {"spec": {"terminationGracePeriod": 5}}}},
    ],
)
def test_a_mistake_does_not_fit(change: dict[str, Any]) -> None:
    (first, *_) = (value for value in own("overlays/dev") if value["kind"] == "Deployment")
    spec = first["spec"]
    template = change["spec"].pop("template", None)
    spec.update(change["spec"])
    if template:
        spec["template"]["spec"].update(template["spec"])

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(first, NEWEST, strict=True)
