"""A good mesh, the overlay for staging, and edits that make mistakes in it."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from headgate.istio_check import kustomize
from headgate.istio_check.check import chain_of, mesh_of
from headgate.istio_check.manifests import Manifest, read_manifests
from headgate.istio_check.mesh import Mesh, PolicyDocument
from headgate.istio_check.patches import located, operate
from headgate.policy import parse_policy
from headgate.policy.document import YamlMapping

ISTIO = Path(__file__).resolve().parents[2] / "istio"
OVERLAY = ISTIO / "overlays" / "staging"
POLICY = OVERLAY / "headgate.yaml"
MESH_CONFIG = ISTIO / "mesh-config.yaml"


@cache
def good_mesh() -> Mesh:
    return mesh_of(POLICY, OVERLAY, MESH_CONFIG)


def changed(edits: Iterable[dict[str, Any]]) -> Mesh:
    """The good mesh after edits: of an object, of the mesh configuration, or of the policy's text.

    `{object, op, path, value}` is an operation of a JSON patch. `{add}` adds an object, `{remove}`
    removes one. `{component}` and `{without component}` do so with the objects of a component.
    `{replace, by}` changes the policy's text.
    """
    mesh = good_mesh()
    objects = {manifest.title: manifest for manifest in mesh.manifests}
    config, policy = mesh.config, mesh.policy
    for edit in edits:
        if "component" in edit:
            objects = _with_component(edit["component"], objects)
        elif "without component" in edit:
            for removed in _component(edit["without component"]):
                del objects[removed.title]
        elif "add" in edit:
            added = Manifest(in_place(edit["add"]), Path("added.yaml"))
            objects[added.title] = added
        elif "remove" in edit:
            del objects[edit["remove"]]
        elif "replace" in edit:
            policy = _policy(policy, edit["replace"], edit["by"])
            objects["ConfigMap headgate/headgate-policy"] = _mounted(policy)
        elif edit["object"] == "mesh configuration":
            config = None if edit["op"] == "leave out" else _edited(config, edit)
        else:
            objects[edit["object"]] = _edited(objects[edit["object"]], edit)
    manifests = tuple(objects.values())
    return replace(
        mesh, manifests=manifests, config=config, policy=policy, chain=chain_of(manifests)
    )


def _with_component(name: str, objects: dict[str, Manifest]) -> dict[str, Manifest]:
    """The objects with those of a component and its patches, as a kustomization adds them."""
    folder = ISTIO / "components" / name
    base = [replace(each, value=copy.deepcopy(each.value)) for each in objects.values()]
    built = kustomize._build(folder.resolve(), folder, base, ())
    return {manifest.title: manifest for manifest in built}


def _component(name: str) -> list[Manifest]:
    files = sorted((ISTIO / "components" / name).glob("*.yaml"))
    manifests = [
        manifest
        for file in files
        if file.stem != "kustomization"
        for manifest in read_manifests(file)
    ]
    return [manifest for manifest in manifests if manifest.kind != "Kustomization"]


def _policy(before: PolicyDocument, old: str, new: str) -> PolicyDocument:
    assert old in before.source
    source = before.source.replace(old, new, 1)
    policy = parse_policy(source.encode(), str(POLICY))
    return PolicyDocument(policy, before.document, source)


def _mounted(policy: PolicyDocument) -> Manifest:
    title = "ConfigMap headgate/headgate-policy"
    manifest = next(each for each in good_mesh().manifests if each.title == title)
    edit = {"op": "replace", "path": "/data/headgate.yaml", "value": policy.source}
    return _edited(manifest, edit)


def _edited(manifest: Manifest | None, edit: dict[str, Any]) -> Manifest:
    assert manifest is not None
    value = copy.deepcopy(manifest.value)
    operate(value, edit)
    return Manifest(value, manifest.file, manifest.line)


def in_place(value: dict[str, Any]) -> YamlMapping:
    copied = located(value, 1)
    assert isinstance(copied, YamlMapping)
    return copied
