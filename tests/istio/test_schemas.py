"""Objects of Kubernetes' own kinds fit its schemas, strictly: a misspelt key is a mistake."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from headgate.istio.kustomize import build

ISTIO = Path(__file__).parents[2] / "istio"
OLDEST, NEWEST = "1.32", "1.36"
"""What Istio 1.31 supports."""
FOLDERS = sorted(
    path.parent.relative_to(ISTIO).as_posix()
    for path in ISTIO.glob("*/*/kustomization.yaml")
    if path.parent.parent.name in ("overlays", "models")
)


def own(folder: str) -> list[dict[str, Any]]:
    """The objects of Kubernetes' own kinds: groups without a dot, and `*.k8s.io`."""
    return [
        json.loads(json.dumps(one.value, default=float))
        for one in build(ISTIO / folder)
        if "." not in one.group or one.group in ("networking.k8s.io", "rbac.authorization.k8s.io")
    ]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", FOLDERS)
def test_objects_fit_the_schema(folder: str, version: str) -> None:
    objects = own(folder)

    assert objects
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replica": 3}},
        {"spec": {"replicas": "three"}},
        {"spec": {"template": {"spec": {"terminationGracePeriod": 5}}}},
    ],
)
def test_a_mistake_does_not_fit(change: dict[str, Any]) -> None:
    (first, *_) = (one for one in own("overlays/dev") if one["kind"] == "Deployment")
    spec = first["spec"]
    template = change["spec"].pop("template", None)
    spec.update(change["spec"])
    if template:
        spec["template"]["spec"].update(template["spec"])

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(first, NEWEST, strict=True)
