"""The check knows exactly the fields of Istio's CRDs."""

import json

from istio.crds.generate import GENERATED, generated


def test_the_committed_fields_are_those_of_the_crds() -> None:
    committed = GENERATED.read_text(encoding="utf-8")
    version = json.loads(committed)["istio"]

    assert committed == generated(version), "`make istio-fields` writes the file anew"
