"""`make test-alerts`: Prometheus' own promtool on the alerts and their tests."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

HERE = Path(__file__).resolve().parent
RULE = HERE.parents[2] / "istio" / "components" / "monitoring" / "prometheusrule.yaml"


def main() -> int:
    """promtool's exit code; 1 with one line where it is missing."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print("make test-alerts needs promtool, which comes with Prometheus", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        groups = YAML(typ="safe").load(RULE.read_text())["spec"]["groups"]
        with (folder / "rules.yaml").open("w") as file:
            YAML().dump({"groups": groups}, file)
        tests = [Path(shutil.copy(file, folder)).name for file in sorted(HERE.glob("*.yaml"))]
        for words in (["check", "rules", "rules.yaml"], ["test", "rules", *tests]):
            done = subprocess.run([promtool, *words], cwd=folder, check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
