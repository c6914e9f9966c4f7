"""The objects that docs/failover.md shows for a mesh."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PAGE = Path(__file__).resolve().parents[2] / "docs" / "failover.md"


def shown_in_page() -> tuple[list[Any], list[dict[str, Any]]]:
    """The routes of the spare version, and the objects of its host."""
    _, *blocks = PAGE.read_text(encoding="utf-8").partition("## In a mesh")[2].split("```yaml\n")
    routes, objects = (
        list(YAML(typ="safe").load_all(block.partition("```")[0])) for block in blocks
    )
    return routes[0], objects
