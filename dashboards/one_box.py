"""For one box: all of it on one page, with no metric of Istio."""

from dashboards import model_owner, sre, tenant
from dashboards.board import Board, Panel


def _plain(panel: Panel) -> bool:
    return panel.only is None


def _everything(board: Board) -> list[Panel]:
    """The panels of a board with a choice, for all values of it."""
    values = {f"${variable.name}": ".*" for variable in board.variables}
    return [panel.with_values(values) for panel in board.panels if _plain(panel)]


BOARD = Board(
    name="one-box",
    title="Headgate: one box",
    panels=(
        *_everything(sre.BOARD),
        *_everything(model_owner.BOARD),
        *_everything(tenant.BOARD),
    ),
)
