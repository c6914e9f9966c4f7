"""Writes the alerts of istio/components/monitoring as a rule file of Prometheus: rules.py FILE."""

import sys
from pathlib import Path

from ruamel.yaml import YAML

OBJECT = Path(__file__).parents[2] / "istio" / "components" / "monitoring" / "prometheusrule.yaml"


def main() -> None:
    """Writes the groups without the Kubernetes object around them."""
    groups = YAML(typ="safe").load(OBJECT.read_text(encoding="utf-8"))["spec"]["groups"]
    with Path(sys.argv[1]).open("w", encoding="utf-8") as file:
        YAML().dump({"groups": groups}, file)


if __name__ == "__main__":
    main()
