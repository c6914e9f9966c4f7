"""Builds a kustomization, so that a check needs no other program.

Only the keys that the folder istio/ uses are known. Any other key is refused: the user then builds
with kubectl and names the result. Objects keep the file and line that they came from.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.istio_check.manifests import Manifest, items, mapping, read_manifests, text
from headgate.istio_check.patches import apply_json_patch, merge
from headgate.policy.document import YamlMapping

FILE = "kustomization.yaml"
_KNOWN = {
    "apiVersion", "kind", "resources", "components", "configMapGenerator", "generatorOptions",
    "images", "replicas", "patches",
}  # fmt: skip
_WITHOUT_SUFFIX = {"disableNameSuffixHash": True}


def build(folder: Path) -> list[Manifest]:
    """The objects of a folder with a kustomization. Raises OperatorError."""
    return _build(folder.resolve(), folder, [], ())


def _build(
    real: Path, shown: Path, base: list[Manifest], above: tuple[Path, ...]
) -> list[Manifest]:
    """`base` holds the objects that a component changes; `above` the folders that led here."""
    if real in above:
        raise OperatorError(f"{shown / FILE}: leads back to itself")
    kustomization = _read(shown / FILE)
    inside = (*above, real)
    objects = list(base)
    for entry in _names(kustomization, "resources"):
        objects += _resource(shown, entry, inside)
    generators = items(kustomization.value.get("configMapGenerator"))
    objects += [_config_map(shown, mapping(generator)) for generator in generators]
    _refuse_duplicates(objects)
    for entry in _names(kustomization, "components"):
        folder = shown / entry
        objects = _build(folder.resolve(), folder, objects, inside)
    for patch in items(kustomization.value.get("patches")):
        objects = _patched(objects, shown, mapping(patch))
    for replicas in items(kustomization.value.get("replicas")):
        _set_replicas(objects, mapping(replicas))
    for image in items(kustomization.value.get("images")):
        _set_image(objects, mapping(image))
    return objects


def _read(file: Path) -> Manifest:
    manifests = read_manifests(file, named=False)
    if len(manifests) != 1:
        raise OperatorError(f"{file}: holds {len(manifests)} documents instead of one")
    kustomization = manifests[0]
    for key in kustomization.value:
        if key not in _KNOWN:
            raise OperatorError(
                f"{file}:{kustomization.line_of((key,))}: {key}: this check does not know the"
                f" key; build with `kubectl kustomize {file.parent} > all.yaml` and name all.yaml"
            )
    options = mapping(kustomization.value.get("generatorOptions"))
    if "configMapGenerator" in kustomization.value and options != _WITHOUT_SUFFIX:
        raise OperatorError(f"{file}: generatorOptions: write {{disableNameSuffixHash: true}}")
    return kustomization


def _names(kustomization: Manifest, key: str) -> Iterator[str]:
    return (text(name) for name in items(kustomization.value.get(key)))


def _resource(folder: Path, entry: str, inside: tuple[Path, ...]) -> list[Manifest]:
    path = folder / entry
    if path.is_dir():
        return _build(path.resolve(), path, [], inside)
    return read_manifests(_file(folder, entry))


def _file(folder: Path, entry: str) -> Path:
    """A file of the folder. kubectl takes folders from anywhere, but files only from below."""
    path = folder / entry
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OperatorError(
            f"{folder / FILE}: {entry} is not below this folder, so kubectl does not read it;"
            " name its folder, or put a copy here"
        )
    return path


def _refuse_duplicates(objects: list[Manifest]) -> None:
    seen: dict[tuple[str, str, str, str], Manifest] = {}
    for manifest in objects:
        first = seen.setdefault(_identity(manifest), manifest)
        if first is not manifest:
            raise OperatorError(f"{manifest.file}: {manifest.title} is in {first.file} too")


def _config_map(folder: Path, generator: dict[str, object]) -> Manifest:
    data = YamlMapping(1)
    for name in items(generator.get("files")):
        key, _, source = text(name).rpartition("=")
        path = _file(folder, source)
        try:
            data[key or path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{path}: cannot be read: {error}") from error
    metadata = {"name": generator.get("name"), "namespace": generator.get("namespace")}
    fields = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    value = YamlMapping(1)
    value.update(fields)
    value.lines.update(dict.fromkeys(fields, 1))
    return Manifest(value, folder / FILE)


def _patched(objects: list[Manifest], folder: Path, patch: dict[str, object]) -> list[Manifest]:
    path = _file(folder, text(patch.get("path")))
    target = mapping(patch.get("target"))
    if set(patch) - {"path", "target"} or not path.is_file():
        raise OperatorError(
            f"{folder / FILE}: patches: each needs the path of a file, and may have a target"
        )
    if target:
        chosen = [manifest for manifest in objects if _is_target(manifest, target)]
        if not chosen:
            raise OperatorError(f"{folder / FILE}: patches: {path.name}: its target does not exist")
        for manifest in chosen:
            apply_json_patch(manifest, path)
        return objects
    for change in read_manifests(path):
        objects = _merged(objects, change)
    return objects


def _is_target(manifest: Manifest, target: dict[str, object]) -> bool:
    read: dict[str, Callable[[Manifest], str]] = {
        "group": lambda each: each.group,
        "kind": lambda each: each.kind,
        "name": lambda each: each.name,
        "namespace": lambda each: each.namespace,
    }
    return all(key in read and read[key](manifest) == value for key, value in target.items())


def _merged(objects: list[Manifest], change: Manifest) -> list[Manifest]:
    for manifest in objects:
        if _identity(manifest) == _identity(change):
            if change.value.get("$patch") == "delete":
                return [other for other in objects if other is not manifest]
            merge(manifest.value, change.value, manifest.group)
            return objects
    raise OperatorError(f"{change.file}: there is no {change.title} that it could change")


def _identity(manifest: Manifest) -> tuple[str, str, str, str]:
    return (manifest.group, manifest.kind, manifest.namespace, manifest.name)


def _set_replicas(objects: list[Manifest], entry: dict[str, object]) -> None:
    for manifest in objects:
        is_scaled = manifest.kind in ("Deployment", "StatefulSet")
        if is_scaled and manifest.name == entry.get("name"):
            manifest.spec["replicas"] = entry.get("count")


def _set_image(objects: list[Manifest], entry: dict[str, object]) -> None:
    for manifest in objects:
        pod = mapping(mapping(manifest.spec.get("template")).get("spec"))
        for container in map(mapping, items(pod.get("containers"))):
            name, _, tag = text(container.get("image")).partition(":")
            if name == entry.get("name"):
                new = text(entry.get("newName")) or name
                tag = text(entry.get("newTag")) or tag
                container["image"] = f"{new}:{tag}" if tag else new
