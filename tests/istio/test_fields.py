"""The fields of Istio's kinds, and how they are read from CRDs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from headgate.istio_check.fields import known_fields
from headgate.istio_check.rules.envoy import MESSAGES
from istio.crds.generate import GENERATED, fields_of_kinds, generated

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def read(folder: Path, **properties: Any) -> object:
    """The fields that a CRD with these properties of `spec` has."""
    schema = {"properties": {"spec": {"properties": properties}}}
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]
    names = {"group": "g.istio.io", "names": {"kind": "K"}}
    crds = folder / "crds.yaml"
    crds.write_text(json.dumps({"spec": {**names, "versions": versions}}))
    return fields_of_kinds(crds)["g.istio.io/K"]


def test_the_committed_fields_are_of_the_istio_that_make_builds() -> None:
    [version] = re.findall(r"^ISTIO := (\S+)$", MAKEFILE.read_text(), re.MULTILINE)

    assert json.loads(GENERATED.read_text(encoding="utf-8"))["istio"] == version


def test_a_kind_of_another_group_has_no_known_fields() -> None:
    assert known_fields("networking.istio.io", "Gateway") is not None
    assert known_fields("gateway.networking.k8s.io", "Gateway") is None


def test_every_object_that_istio_patches_has_a_message_of_envoy() -> None:
    """The rule for `applyTo` is `typed-config`; here its words agree with those of the CRD."""
    patches: Any = known_fields("networking.istio.io", "EnvoyFilter")

    assert patches["configPatches"]["applyTo"] == MESSAGES.keys()


@pytest.mark.parametrize(
    ("schema", "fields"),
    [
        ({"type": "string"}, None),
        (
            {"properties": {"b": {"type": "string"}, "a": {"type": "integer"}}},
            {"a": None, "b": None},
        ),
        ({"items": {"properties": {"a": {"type": "string"}}}}, {"a": None}),
        ({"additionalProperties": {"type": "string"}}, {"*": None}),
        ({"enum": ["INVALID", "B", "A"]}, ["A", "B"]),
        ({"properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": True}, None),
    ],
    ids=["a value", "an object", "a list of objects", "any key", "words", "anything"],
)
def test_a_schema_gives_fields(schema: dict[str, Any], fields: object, tmp_path: Path) -> None:
    assert read(tmp_path, field=schema) == {"field": fields}


def test_generating_needs_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(RuntimeError, match="not on PATH"):
        generated("v0.0.0")
