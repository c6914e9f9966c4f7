"""Each board obeys its variables, and each file is what the code writes."""

import json
from collections.abc import Iterator

import pytest

from dashboards.__main__ import BOARDS, files
from dashboards.board import Board, Only, Panel

PANELS = [(board, panel) for board in BOARDS for panel in board.panels]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_is_what_grafana_imports(board: Board) -> None:
    model = board.grafana()
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in model["panels"]]
    titles = [panel["title"] for panel in model["panels"]]

    assert len(set(places)) == len(places)
    assert len(set(titles)) == len(titles)
    assert max(x for x, _ in places) == 16
    assert len({panel["id"] for panel in model["panels"]}) == len(board.panels)


def ignored(board: Board, panel: Panel) -> Iterator[str]:
    for variable in board.variables:
        for line in panel.lines:
            if f'=~"${variable.name}"' not in line.promql:
                yield f"{panel.title}: {variable.name}"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_no_panel_ignores_a_variable_or_names_one_that_is_not_there(board: Board) -> None:
    assert [each for panel in board.panels for each in ignored(board, panel)] == []
    for panel in board.panels:
        values = {f"${variable.name}": "" for variable in board.variables}
        for line in panel.with_values(values).lines:
            assert "$" not in line.promql.replace("$__rate_interval", "")


def test_one_box_asks_for_no_metric_of_a_mesh() -> None:
    text = json.dumps(BOARDS[-1].grafana())

    assert "istio_" not in text
    assert "envoy_" not in text


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda each: getattr(each, "title", ""))
def test_only_panels_of_a_mesh_ask_for_its_metrics(board: Board, panel: Panel) -> None:
    text = " ".join(line.promql for line in panel.lines)

    assert (panel.only is Only.MESH) == ("istio_" in text or "envoy_" in text), board.name


def test_the_files_are_what_make_dashboards_writes() -> None:
    for file, text in files().items():
        assert file.read_text() == text, file.name
