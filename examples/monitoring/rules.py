"""Writes the rules for one box as a rule file of Prometheus: rules.py FILE.

Alerts are those of istio/components/monitoring. They read recorded series, which come from
sources.yml here instead of from Istio's metrics.
"""

import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parent
MESH = HERE.parents[1] / "istio" / "components" / "monitoring"


def groups() -> list[Any]:
    """The groups, without the Kubernetes objects around them."""
    yaml = YAML(typ="safe")
    found = list(yaml.load(HERE / "sources.yml")["groups"])
    for name in ("slo.yaml", "prometheusrule.yaml"):
        found += yaml.load(MESH / name)["spec"]["groups"]
    return found


def main() -> None:
    """Writes the file that the command line names."""
    with Path(sys.argv[1]).open("w", encoding="utf-8") as file:
        YAML().dump({"groups": groups()}, file)


if __name__ == "__main__":
    main()
