"""From files and folders to what the rules read: the one way in."""

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
        one for one in path.rglob("*") if one.suffix in _ENDINGS and not one.name.startswith(".")
    )
    nested = next((one for one in files if one.name == kustomize.FILE), None)
    if nested is not None:
        raise OperatorError(
            f"{path}: has no {kustomize.FILE} and {nested} below it: name a folder that has one"
        )
    return _flat([one for file in files for one in read_manifests(file)])


def load_mesh_config(path: Path) -> Manifest:
    """The mesh configuration: by itself, or below `meshConfig` in values of Helm."""
    return mesh_config(read_plain(path, _CONFIG))


def load_policy_document(path: Path) -> PolicyDocument:
    """The policy, compiled and as it stands. Raises PolicyError with every mistake."""
    data = read_policy(path)
    policy = parse_policy(data, str(path))
    document = read_plain(path, FileKind("policy", "models and tenants"))
    return PolicyDocument(policy, document, data.decode("utf-8"))


def _flat(manifests: list[Manifest]) -> list[Manifest]:
    """A List, as kubectl prints it, stands for its items."""
    found = []
    for one in manifests:
        inner = one.value.get("items")
        if one.kind.endswith("List") and isinstance(inner, list):
            found += [
                Manifest(each, one.file, one.line)
                for each in inner
                if isinstance(each, type(one.value))
            ]
        else:
            found.append(one)
    return found
