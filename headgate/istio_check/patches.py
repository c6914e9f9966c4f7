"""Changes an object as a kustomization asks: by a merge, or by a JSON patch (RFC 6902)."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headgate.core.errors import OperatorError
from headgate.istio_check.manifests import Manifest, mapping
from headgate.policy.document import YamlList, YamlMapping

_NAMED = {"containers", "initContainers", "volumes", "env", "ports", "volumeMounts"}
"""Lists of Kubernetes' own kinds whose items are merged by their names.

Lists of custom resources are replaced as a whole: kubectl has no schema for them either.
"""


def merge(value: dict[str, object], change: dict[str, object], group: str) -> None:
    """Merges `change` into `value`, in place. null removes a key."""
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
    """Puts the items of the change first, as kubectl does."""
    by_name = {mapping(item).get("name"): item for item in old}
    changed: list[object] = []
    for item in new:
        known = by_name.get(mapping(item).get("name"))
        if isinstance(known, dict) and isinstance(item, dict):
            merge(known, item, group)
            changed.append(known)
        else:
            changed.append(item)
    lines = dict(zip(map(id, old), old.lines, strict=True)) if isinstance(old, YamlList) else {}
    kept = [item for item in old if not any(item is other for other in changed)]
    old[:] = [*changed, *kept]
    if isinstance(old, YamlList):
        old.lines[:] = [lines.get(id(item), 1) for item in old]


def _put(value: dict[str, object], key: str, new: object) -> None:
    if isinstance(value, YamlMapping):
        line = value.lines.setdefault(key, value.line)
        value[key] = located(new, line)
    else:
        value[key] = new


def located(value: object, line: int) -> object:
    """A copy whose values are all on one line: a patch has the line of the value it changes."""
    if isinstance(value, dict):
        mapping_copy = YamlMapping(line)
        mapping_copy.update({str(key): located(inner, line) for key, inner in value.items()})
        mapping_copy.lines.update(dict.fromkeys(mapping_copy, line))
        return mapping_copy
    if isinstance(value, list):
        list_copy = YamlList()
        list_copy += [located(inner, line) for inner in value]
        list_copy.lines += [line] * len(value)
        return list_copy
    return value


def apply_json_patch(manifest: Manifest, file: Path) -> None:
    """Applies the operations `add`, `replace` and `remove` of a file. Raises OperatorError."""
    try:
        operations = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise OperatorError(f"{file}: cannot be read: {error}") from error
    if not isinstance(operations, list):
        raise OperatorError(f"{file}: must be a list of operations, each {{op: ..., path: ...}}")
    for operation in map(mapping, operations):
        try:
            operate(manifest.value, operation)
        except (LookupError, ValueError, TypeError) as error:
            path, title = operation.get("path"), manifest.title
            raise OperatorError(f"{file}: {path}: does not fit {title}") from error


def operate(root: object, operation: dict[str, object]) -> None:
    """Applies one operation in place. Raises LookupError, ValueError or TypeError if it cannot."""
    *parents, last = (
        part.replace("~1", "/").replace("~0", "~")
        for part in str(operation["path"]).removeprefix("/").split("/")
    )
    for key in parents:
        root = root[int(key)] if isinstance(root, list) else root[key]  # type: ignore[index]
    kind = operation["op"]
    if isinstance(root, list):
        _operate_on_list(root, last, operation)
    elif isinstance(root, dict):
        if kind == "remove":
            del root[last]
        else:
            _put(root, last, operation["value"])
    else:
        raise TypeError(kind)


def _operate_on_list(root: list[object], last: str, operation: dict[str, object]) -> None:
    at = len(root) if last == "-" else int(last)
    lines = root.lines if isinstance(root, YamlList) else [1] * len(root)
    line = lines[min(at, len(lines) - 1)] if lines else 1
    kind = operation["op"]
    if kind == "remove":
        del root[at]
        del lines[at]
    elif kind == "replace":
        root[at] = located(operation["value"], line)
    else:
        root.insert(at, located(operation["value"], line))
        lines.insert(at, line)
