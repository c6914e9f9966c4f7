"""Reads the fields of Istio's kinds from its CRDs: `python -m istio.crds.generate VERSION`.

`VERSION` is one of the Go module istio.io/istio, whose chart `base` holds the CRDs (custom resource
definitions). The program `go` fetches it. The result, headgate/istio_check/fields.json, is
described in headgate/istio_check/fields.py.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML

GENERATED = Path(__file__).resolve().parents[2] / "headgate" / "istio_check" / "fields.json"
_MODULE = "istio.io/istio"
_CRDS = Path("manifests", "charts", "base", "files", "crd-all.gen.yaml")
_ANY_KEY = "*"
_DURATION = "duration"
_NO_WORD = "INVALID"
"""The zero value of some enums. A CRD lists it, but istiod refuses it."""

Schema: TypeAlias = Mapping[str, Any]


def generated(version: str) -> str:
    """The content of fields.json for a version of Istio.

    Raises RuntimeError if there is no `go` or it cannot fetch the version.
    """
    content = {"istio": version, "kinds": fields_of_kinds(fetched(version) / _CRDS)}
    return json.dumps(content, indent=1) + "\n"


def fields_of_kinds(crds: Path) -> dict[str, object]:
    """The fields of each kind of a file of CRDs, by `GROUP/KIND`."""
    kinds = {}
    for crd in filter(None, YAML(typ="safe").load_all(crds.read_text(encoding="utf-8"))):
        spec = crd["spec"]
        # Istio serves the same schema under each version of a kind.
        version = spec["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        kinds[f"{spec['group']}/{spec['names']['kind']}"] = _fields(schema)
    return dict(sorted(kinds.items()))


def _fields(schema: Schema) -> object:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return None
    if "items" in schema:
        return _fields(schema["items"])
    if "additionalProperties" in schema:
        return {_ANY_KEY: _fields(schema["additionalProperties"])}
    if "properties" in schema:
        return {name: _fields(inner) for name, inner in sorted(schema["properties"].items())}
    if "enum" in schema:
        return sorted(word for word in schema["enum"] if word != _NO_WORD)
    rules = [each.get("rule", "") for each in schema.get("x-kubernetes-validations", ())]
    return _DURATION if any(rule.startswith("duration(self)") for rule in rules) else None


def fetched(version: str) -> Path:
    """The folder of the Go module, in the cache of modules."""
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("the program `go` is not on PATH")
    command = [go, "mod", "download", "-json", f"{_MODULE}@{version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"`go mod download` failed: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


if __name__ == "__main__":
    GENERATED.write_text(generated(sys.argv[1]), encoding="utf-8")
