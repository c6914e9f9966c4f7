"""What a kustomization changes in an object: a merge, or a JSON patch (RFC 6902)."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headgate.core.errors import OperatorError
from headgate.istio_check.manifests import Manifest, mapping
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
    if isinstance(value, YamlMapping):
        line = value.lines.setdefault(key, value.line)
        value[key] = located(new, line)
    else:
        value[key] = new


def located(value: object, line: int) -> object:
    """A copy that stands on one line: what a patch brings has the place of what it changes."""
    if isinstance(value, dict):
        mapping_there = YamlMapping(line)
        mapping_there.update({str(key): located(inner, line) for key, inner in value.items()})
        mapping_there.lines.update(dict.fromkeys(mapping_there, line))
        return mapping_there
    if isinstance(value, list):
        list_there = YamlList()
        list_there += [located(inner, line) for inner in value]
        list_there.lines += [line] * len(value)
        return list_there
    return value


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
            operate(one.value, operation)
        except (LookupError, ValueError, TypeError) as error:
            raise OperatorError(f"{file}: {operation.get('path')}: fits not {one.title}") from error


def operate(root: object, operation: dict[str, object]) -> None:
    """Does one operation in place. Raises LookupError, ValueError or TypeError where it cannot."""
    *way, last = (
        part.replace("~1", "/").replace("~0", "~")
        for part in str(operation["path"]).removeprefix("/").split("/")
    )
    for step in way:
        root = root[int(step)] if isinstance(root, list) else root[step]  # type: ignore[index]
    word = operation["op"]
    if isinstance(root, list):
        _operate_on_list(root, word, last, operation)
    elif isinstance(root, dict):
        if word == "remove":
            del root[last]
        else:
            _put(root, last, operation["value"])
    else:
        raise TypeError(word)


def _operate_on_list(
    root: list[object], word: object, last: str, operation: dict[str, object]
) -> None:
    at = len(root) if last == "-" else int(last)
    lines = root.lines if isinstance(root, YamlList) else [1] * len(root)
    line = lines[min(at, len(lines) - 1)] if lines else 1
    if word == "remove":
        del root[at]
        del lines[at]
    elif word == "replace":
        root[at] = located(operation["value"], line)
    else:
        root.insert(at, located(operation["value"], line))
        lines.insert(at, line)
