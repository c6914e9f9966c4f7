"""The builder of kustomizations gives what kubectl gives, or says that it cannot."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headgate.core.errors import OperatorError
from headgate.istio_check.kustomize import build
from headgate.istio_check.manifests import Manifest, read_manifests

HERE = Path(__file__).parent / "kustomize"
OVERLAYS = Path(__file__).parents[2] / "istio" / "overlays"


def by_name(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(value["kind"], value["metadata"]["name"]): value for value in objects}


def plain_of(manifest: Manifest) -> dict[str, Any]:
    return dict(json.loads(json.dumps(manifest.value, default=float)))


def plain(folder: Path) -> list[dict[str, Any]]:
    return [plain_of(manifest) for manifest in build(folder)]


def test_the_result_is_that_of_kubectl() -> None:
    """`kubectl kustomize everything > everything.expected.yaml` made the expectation."""
    yaml = YAML(typ="safe", pure=True)
    expected = list(yaml.load_all((HERE / "everything.expected.yaml").read_text()))

    assert by_name(plain(HERE / "everything")) == by_name(expected)


@pytest.mark.parametrize("overlay", ["dev", "staging", "prod"])
def test_every_object_of_an_overlay_stands_once_and_knows_its_file(overlay: str) -> None:
    built = build(OVERLAYS / overlay)

    assert (
        len({(manifest.kind, manifest.namespace, manifest.name) for manifest in built})
        == len(built)
        > 20
    )
    assert all(manifest.file.is_file() for manifest in built)


def test_lines_are_those_of_the_file() -> None:
    *_, gateway, service = read_manifests(HERE / "everything" / "objects.yaml")
    lines = (HERE / "everything" / "objects.yaml").read_text().splitlines()

    assert (
        lines[gateway.line_of(("spec", "servers", 1)) - 1]
        .strip()
        .startswith("- {port: {number: 80")
    )
    assert lines[service.line_of(("spec",)) - 1] == "spec: {ports: [{port: 1}]}"


@pytest.mark.parametrize("overlay", ["staging", "prod"])
def test_the_routes_of_the_gateway_api_take_the_place_of_the_virtual_services(
    overlay: str, tmp_path: Path
) -> None:
    istio = OVERLAYS.parent
    further = [
        path.name for path in (istio / "components" / "gateway-api").iterdir() if path.is_dir()
    ]
    names = [f"gateway-api/{name}" for name in further] if overlay == "prod" else []
    lines = [f"resources: [{istio}/overlays/{overlay}]", "components:"]
    lines += [
        f"  - {istio}/components/{name}" for name in ("gateway-api", "inference-pool", *names)
    ]
    (tmp_path / "kustomization.yaml").write_text("\n".join(lines))
    kinds = [manifest.kind for manifest in build(tmp_path)]

    assert kinds.count("HTTPRoute") == 2 + len(names)
    assert kinds.count("InferencePool") == 2
    assert kinds.count("Gateway") == 1
    assert "VirtualService" not in kinds


def test_counting_in_ext_proc_takes_the_tap_out(tmp_path: Path) -> None:
    istio = OVERLAYS.parent
    component = f"{istio}/components/extproc-counting"
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{istio}/overlays/staging]\ncomponents: [{component}]\n"
    )
    built = {(manifest.kind, manifest.name): plain_of(manifest) for manifest in build(tmp_path)}
    patches = built[("EnvoyFilter", "headgate-filters")]["spec"]["configPatches"]
    names = [patch["patch"]["value"]["name"] for patch in patches]

    assert "headgate.usage_tap" not in names
    assert "headgate.ext_proc" in names


def test_the_component_lean_asks_once(tmp_path: Path) -> None:
    istio = OVERLAYS.parent
    component = f"{istio}/components/lean"
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{istio}/overlays/staging]\ncomponents: [{component}]\n"
    )
    built = {(manifest.kind, manifest.name): plain_of(manifest) for manifest in build(tmp_path)}
    patches = built[("EnvoyFilter", "headgate-filters")]["spec"]["configPatches"]
    names = [patch["patch"]["value"]["name"] for patch in patches]

    assert "headgate.slot_settler" in names
    assert {"headgate.ext_proc", "headgate.ratelimit"}.isdisjoint(names)


BAD = {
    "an unknown key": (
        {"kustomization.yaml": "namePrefix: a-\n"},
        "namePrefix: this check does not know the key",
    ),
    "a file that is not there": ({"kustomization.yaml": "resources: [x.yaml]\n"}, "cannot be read"),
    "a file of another folder": (
        {"kustomization.yaml": "resources: [../x.yaml]\n"},
        "../x.yaml is not below this folder",
    ),
    "a patch of another folder": (
        {"kustomization.yaml": "patches: [{path: ../p.yaml}]\n"},
        "../p.yaml is not below this folder",
    ),
    "itself": ({"kustomization.yaml": "resources: [.]\n"}, "leads back to itself"),
    "no YAML": ({"kustomization.yaml": "resources: [\n"}, "this is not valid YAML"),
    "an object that is none": (
        {"kustomization.yaml": "resources: [x.yaml]\n", "x.yaml": "a: 1\n"},
        "lacks apiVersion or kind",
    ),
    "a patch without its object": (
        {
            "kustomization.yaml": "patches: [{path: p.yaml}]\n",
            "p.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: no}\n",
        },
        "there is no Service no",
    ),
    "an operation that does not fit": (
        {
            "kustomization.yaml": "resources: [x.yaml]\npatches:\n"
            "  - {path: p.yaml, target: {kind: Service}}\n",
            "x.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: one}\n",
            "p.yaml": "- {op: replace, path: /spec/ports/0, value: 1}\n",
        },
        "/spec/ports/0: does not fit Service one",
    ),
    "an object twice": (
        {
            "kustomization.yaml": "resources: [x.yaml, y.yaml]\n",
            "x.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: one}\n",
            "y.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: one}\n",
        },
        "Service one is in",
    ),
    "names with a suffix": (
        {"kustomization.yaml": "configMapGenerator: [{name: a, files: []}]\n"},
        "disableNameSuffixHash",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_cannot_build_is_one_line_that_says_where(name: str, tmp_path: Path) -> None:
    files, expected = BAD[name]
    for file, text in files.items():
        head = "kind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\n"
        (tmp_path / file).write_text(head + text if file == "kustomization.yaml" else text)

    with pytest.raises(OperatorError) as error:
        build(tmp_path)
    assert expected in str(error.value)
    assert str(tmp_path) in str(error.value)
