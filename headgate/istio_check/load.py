"""Reads the files and folders that are checked: objects, mesh configuration and policy."""

from pathlib import Path

from headgate.core.errors import OperatorError
from headgate.istio_check import kustomize
from headgate.istio_check.manifests import Manifest, read_manifests, read_plain
from headgate.istio_check.mesh import PolicyDocument, mesh_config
from headgate.policy import parse_policy, read_policy
from headgate.policy.document import FileKind

_CONFIG = FileKind("mesh configuration", "extensionProviders and defaultConfig")
_ENDINGS = (".yaml", ".yml")


def load_objects(path: Path) -> list[Manifest]:
    """The objects of a file, of a folder's files, or of a folder with a kustomization.

    Raises OperatorError with every mistake of the YAML.
    """
    if not path.is_dir():
        return _flat(read_manifests(path))
    if (path / kustomize.FILE).is_file():
        return _flat(kustomize.build(path))
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix in _ENDINGS and not file.name.startswith(".")
    )
    nested = next((file for file in files if file.name == kustomize.FILE), None)
    if nested is not None:
        raise OperatorError(
            f"{path}: has no {kustomize.FILE}, but {nested} is below it: name a folder that has one"
        )
    return _flat([manifest for file in files for manifest in read_manifests(file)])


def load_mesh_config(path: Path) -> Manifest:
    """The mesh configuration: a file of its own, or below `meshConfig` in Helm values."""
    return mesh_config(read_plain(path, _CONFIG))


def load_policy_document(path: Path) -> PolicyDocument:
    """The policy: compiled, and its document. Raises PolicyError with every mistake."""
    data = read_policy(path)
    policy = parse_policy(data, str(path))
    document = read_plain(path, FileKind("policy", "models and tenants"))
    return PolicyDocument(policy, document, data.decode("utf-8"))


def _flat(manifests: list[Manifest]) -> list[Manifest]:
    """Replaces a List, as kubectl prints it, by its items."""
    flat = []
    for manifest in manifests:
        listed = manifest.value.get("items")
        if manifest.kind.endswith("List") and isinstance(listed, list):
            flat += [
                Manifest(value, manifest.file, manifest.line)
                for value in listed
                if isinstance(value, type(manifest.value))
            ]
        else:
            flat.append(manifest)
    return flat
