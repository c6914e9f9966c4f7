"""Builds a kustomization, as far as the folder istio/ goes, so that a check needs no other program.

What it does not know it refuses: the user then builds with kubectl and names the result. Objects
keep the file and line that they came from.
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
    """`base` is what a component changes; `above` are the folders that led here."""
    if real in above:
        raise OperatorError(f"{shown / FILE}: leads back to itself")
    kustomization = _read(shown / FILE)
    inside = (*above, real)
    found = list(base)
    for entry in _names(kustomization, "resources"):
        found += _resource(shown, entry, inside)
    found += [
        _config_map(shown, one) for one in items(kustomization.value.get("configMapGenerator"))
    ]
    _refuse_twice(found)
    for entry in _names(kustomization, "components"):
        folder = shown / entry
        found = _build(folder.resolve(), folder, found, inside)
    for patch in items(kustomization.value.get("patches")):
        found = _patched(found, shown, mapping(patch))
    for one in items(kustomization.value.get("replicas")):
        _set_replicas(found, mapping(one))
    for one in items(kustomization.value.get("images")):
        _set_image(found, mapping(one))
    return found


def _read(file: Path) -> Manifest:
    manifests = read_manifests(file, named=False)
    if len(manifests) != 1:
        raise OperatorError(f"{file}: holds {len(manifests)} documents, one is needed")
    kustomization = manifests[0]
    for key in kustomization.value:
        if key not in _KNOWN:
            raise OperatorError(
                f"{file}:{kustomization.line_of((key,))}: {key}: is not known here; build with"
                f" `kubectl kustomize {file.parent} > all.yaml` and name all.yaml instead"
            )
    options = mapping(kustomization.value.get("generatorOptions"))
    if "configMapGenerator" in kustomization.value and options != _WITHOUT_SUFFIX:
        raise OperatorError(f"{file}: generatorOptions: write {{disableNameSuffixHash: true}}")
    return kustomization


def _names(kustomization: Manifest, key: str) -> Iterator[str]:
    return (text(one) for one in items(kustomization.value.get(key)))


def _resource(folder: Path, entry: str, inside: tuple[Path, ...]) -> list[Manifest]:
    path = folder / entry
    if path.is_dir():
        return _build(path.resolve(), path, [], inside)
    return read_manifests(_file(folder, entry))


def _file(folder: Path, entry: str) -> Path:
    """A file of the folder. kubectl takes folders from anywhere and files from no other folder."""
    path = folder / entry
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OperatorError(
            f"{folder / FILE}: {entry} is not below this folder, and kubectl reads no such file;"
            " name its folder, or put a copy here"
        )
    return path


def _refuse_twice(found: list[Manifest]) -> None:
    seen: dict[tuple[str, str, str, str], Manifest] = {}
    for one in found:
        first = seen.setdefault((one.group, one.kind, one.namespace, one.name), one)
        if first is not one:
            raise OperatorError(f"{one.file}: {one.title} stands in {first.file} too")


def _config_map(folder: Path, entry: object) -> Manifest:
    generator = mapping(entry)
    data = YamlMapping(1)
    for name in items(generator.get("files")):
        key, _, source = text(name).rpartition("=")
        path = _file(folder, source)
        try:
            data[key or path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{path}: cannot be read: {error}") from error
    metadata = {"name": generator.get("name"), "namespace": generator.get("namespace")}
    whole = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    value = YamlMapping(1)
    value.update(whole)
    value.lines.update(dict.fromkeys(whole, 1))
    return Manifest(value, folder / FILE)


def _patched(found: list[Manifest], folder: Path, patch: dict[str, object]) -> list[Manifest]:
    path = _file(folder, text(patch.get("path")))
    target = mapping(patch.get("target"))
    if set(patch) - {"path", "target"} or not path.is_file():
        raise OperatorError(
            f"{folder / FILE}: patches: each needs a path that exists, maybe a target"
        )
    if target:
        chosen = [one for one in found if _is_target(one, target)]
        if not chosen:
            raise OperatorError(f"{folder / FILE}: patches: {path.name}: its target is not there")
        for one in chosen:
            apply_json_patch(one, path)
        return found
    for change in read_manifests(path):
        found = _merged(found, change)
    return found


def _is_target(one: Manifest, target: dict[str, object]) -> bool:
    read: dict[str, Callable[[Manifest], str]] = {
        "group": lambda each: each.group,
        "kind": lambda each: each.kind,
        "name": lambda each: each.name,
        "namespace": lambda each: each.namespace,
    }
    return all(key in read and read[key](one) == value for key, value in target.items())


def _merged(found: list[Manifest], change: Manifest) -> list[Manifest]:
    for one in found:
        same = (one.kind, one.name, one.namespace) == (change.kind, change.name, change.namespace)
        if same and one.group == change.group:
            if change.value.get("$patch") == "delete":
                return [other for other in found if other is not one]
            merge(one.value, change.value, one.group)
            return found
    raise OperatorError(f"{change.file}: there is no {change.title} that it could change")


def _set_replicas(found: list[Manifest], entry: dict[str, object]) -> None:
    for one in found:
        if one.name == entry.get("name") and one.kind in ("Deployment", "StatefulSet"):
            one.spec["replicas"] = entry.get("count")


def _set_image(found: list[Manifest], entry: dict[str, object]) -> None:
    for one in found:
        pod = mapping(mapping(one.spec.get("template")).get("spec"))
        for container in map(mapping, items(pod.get("containers"))):
            name, _, tag = text(container.get("image")).partition(":")
            if name == entry.get("name"):
                new = text(entry.get("newName")) or name
                tag = text(entry.get("newTag")) or tag
                container["image"] = f"{new}:{tag}" if tag else new
