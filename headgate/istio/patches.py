"""What a kustomization changes in an object: a merge, or a JSON patch (RFC 6902)."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headgate.errors import OperatorError
from headgate.istio.manifests import Manifest, mapping
from headgate.policy.document import YamlList, YamlMapping

_NAMED = {"containers", "initContainers", "volumes", "env", "ports", "volumeMounts"}
"""Lists of Kubernetes' own kinds whose items are merged by their name. Those of custom resources
are replaced as a whole, as kubectl does without their schema."""


def merge(value: dict[str, object], change: dict[str, object], group: str) -> None:
    """Merges `change` into `value`, in place. null takes a key away."""
    for key, new in change.items():
        old = value.get(key)
        if new is None:
            value.pop(key, None)
        elif isinstance(old, dict) and isinstance(new, dict):
            merge(old, new, group)
        elif key in _NAMED and "." not in group and isinstance(old, list) and isinstance(new, list):
            _merge_named(old, new, group)
        else:
            _put(value, key, new)


def _merge_named(old: list[object], new: list[object], group: str) -> None:
    """Items of the change come first, as kubectl puts them."""
    by_name = {mapping(one).get("name"): one for one in old}
    changed: list[object] = []
    for one in new:
        known = by_name.get(mapping(one).get("name"))
        if isinstance(known, dict) and isinstance(one, dict):
            merge(known, one, group)
            changed.append(known)
        else:
            changed.append(one)
    lines = dict(zip(map(id, old), old.lines, strict=True)) if isinstance(old, YamlList) else {}
    old[:] = [*changed, *(one for one in old if not any(one is other for other in changed))]
    if isinstance(old, YamlList):
        old.lines[:] = [lines.get(id(one), 1) for one in old]


def _put(value: dict[str, object], key: str, new: object) -> None:
    value[key] = new
    if isinstance(value, YamlMapping):
        value.lines.setdefault(key, value.line)


def apply_json_patch(one: Manifest, file: Path) -> None:
    """Does the operations `add`, `replace` and `remove` of a file. Raises OperatorError."""
    try:
        operations = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise OperatorError(f"{file}: cannot be read: {error}") from error
    if not isinstance(operations, list):
        raise OperatorError(f"{file}: must be a list of operations, each {{op: ..., path: ...}}")
    for operation in map(mapping, operations):
        try:
            _operate(one.value, operation)
        except (LookupError, ValueError, TypeError) as error:
            raise OperatorError(f"{file}: {operation.get('path')}: fits not {one.title}") from error


def _operate(root: object, operation: dict[str, object]) -> None:
    *way, last = str(operation["path"]).removeprefix("/").split("/")
    for step in way:
        root = root[int(step)] if isinstance(root, list) else root[step]  # type: ignore[index]
    word = operation["op"]
    if isinstance(root, list):
        if word == "remove":
            del root[int(last)]
        elif word == "replace":
            root[int(last)] = operation["value"]
        else:
            root.insert(len(root) if last == "-" else int(last), operation["value"])
    elif isinstance(root, dict):
        if word == "remove":
            del root[last]
        else:
            _put(root, last, operation["value"])
    else:
        raise TypeError(word)
