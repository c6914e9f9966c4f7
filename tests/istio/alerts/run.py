"""`make test-alerts`: Prometheus' own promtool on the alerts and their tests."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MESH = ROOT / "istio" / "components" / "monitoring"
RULES = ("sources.yaml", "slo.yaml", "prometheusrule.yaml")


def mesh_groups() -> list[Any]:
    """The groups of a mesh's rules, without the Kubernetes objects around them."""
    yaml = YAML(typ="safe")
    return [group for name in RULES for group in yaml.load(MESH / name)["spec"]["groups"]]


def main() -> int:
    """promtool's exit code; 1 with one line where it is missing."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print("make test-alerts needs promtool, which comes with Prometheus", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "rules.yaml").open("w") as file:
            YAML().dump({"groups": mesh_groups()}, file)
        one_box = str(ROOT / "examples" / "monitoring" / "rules.py")
        subprocess.run([sys.executable, one_box, str(folder / "box_rules.yaml")], check=True)
        tests = [Path(shutil.copy(file, folder)).name for file in sorted(HERE.glob("*.yaml"))]
        for words in (
            ["check", "rules", "rules.yaml", "box_rules.yaml"],
            ["test", "rules", *tests],
        ):
            done = subprocess.run([promtool, *words], cwd=folder, check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
