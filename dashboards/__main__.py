"""`python -m dashboards [--check]`: writes the files of the dashboards, or checks them."""

import json
import sys
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from dashboards import model_owner, one_box, sre, tenant
from dashboards.board import Board

ROOT = Path(__file__).resolve().parents[1]
BOARDS = (sre.BOARD, model_owner.BOARD, tenant.BOARD, one_box.BOARD)
_IN_A_MESH = ROOT / "istio" / "components" / "monitoring"
_ONE_BOX = ROOT / "examples" / "dashboards"


def files() -> dict[Path, str]:
    """The text of every file: one to import for each board, and those of a mesh."""
    plain = {_ONE_BOX / f"{board.name}.json": _json(board) for board in BOARDS}
    in_a_mesh = {
        _IN_A_MESH / f"dashboard-{board.name}.yaml": _config_map(board)
        for board in BOARDS
        if board is not one_box.BOARD
    }
    return plain | in_a_mesh


def _json(board: Board) -> str:
    return json.dumps(board.grafana(), indent=1) + "\n"


def _config_map(board: Board) -> str:
    """For Grafana's sidecar, which finds dashboards by the label."""
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"headgate-dashboard-{board.name}",
            "namespace": "headgate",
            "labels": {"grafana_dashboard": "1"},
        },
        "data": {f"headgate-{board.name}.json": LiteralScalarString(_json(board))},
    }
    yaml = YAML()
    yaml.width = 4096
    with StringIO() as text:
        text.write("# Written by `make dashboards`.\n")
        yaml.dump(document, text)
        return text.getvalue()


def main(arguments: list[str]) -> int:
    """1 if a file is not current and `--check` was given."""
    stale = [file for file, text in files().items() if not _is_current(file, text)]
    if "--check" in arguments:
        for file in stale:
            print(f"{file.relative_to(ROOT)} is not what `make dashboards` writes")
        return 1 if stale else 0
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(files()[file])
    return 0


def _is_current(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
