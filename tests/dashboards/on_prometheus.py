"""`make test-dashboards`: every panel and every scaling query on a real Prometheus.

A real box feeds it. Panels of a mesh are left out: their metrics are Istio's, whose names
tests/istio checks.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dashboards.__main__ import BOARDS
from dashboards.board import Board, Panel
from tests.dashboards.prometheus import Prometheus, running
from tests.dashboards.scene import playing
from tests.istio.names import COMPONENTS
from tests.istio.test_ops_metrics import load
from tests.patience import PATIENCE_S

VALUES = {"model": "tiny", "version": "v1|v2", "tenant": "acme|globex|-"}
OTHERS = dict.fromkeys(VALUES, "nothing")


async def test_panels_and_scaling_queries_have_answers(tmp_path: Path) -> None:
    async with playing(tmp_path) as targets:
        with running(tmp_path, targets) as prometheus:
            queries = [line.promql for _, panel in panels() for line in filled(panel, VALUES)]
            await all_answered(prometheus, queries)
            # In a thread, as the traffic needs this one: without it each rate becomes 0 of 0.
            await asyncio.to_thread(check, prometheus)


def check(prometheus: Prometheus) -> None:
    for board, panel in panels():
        check_panel(prometheus, board, panel)
    check_scaling(prometheus)
    check_demand(prometheus)


def panels() -> list[tuple[Board, Panel]]:
    return [(board, panel) for board in BOARDS for panel in board.panels if panel.only is None]


def filled(panel: Panel, values: Mapping[str, str]) -> Any:
    chosen = {f"${name}": value for name, value in values.items()}
    return panel.with_values({**chosen, "$__rate_interval": "30s"}).lines


async def all_answered(prometheus: Prometheus, queries: list[str]) -> None:
    """Waits until each query has had a number, for as long as a test may wait."""
    end_s = time.monotonic() + PATIENCE_S
    while queries:
        assert time.monotonic() < end_s, "no answer to:\n" + "\n".join(queries)
        await asyncio.sleep(1)
        queries = [query for query in queries if not prometheus.numbers(query)]


def check_panel(prometheus: Prometheus, board: Board, panel: Panel) -> None:
    """Each query of the panel has a number, and each variable changes it."""
    where = f"{board.name}: {panel.title}"
    for line in filled(panel, VALUES):
        assert prometheus.numbers(line.promql), where
        names = re.findall(r"{{(\w+)}}", line.legend)
        for sample in prometheus.ask(line.promql)[:1]:
            assert set(names) <= set(sample["metric"]), f"{where}: {line.legend}"
    for variable in board.variables:
        for line in filled(panel, {**VALUES, variable.name: OTHERS[variable.name]}):
            assert prometheus.ask(line.promql) == [], f"{where} ignores {variable.name}"


def check_scaling(prometheus: Prometheus) -> None:
    """Each query of KEDA has exactly one number, for the models of this box."""
    files = list((COMPONENTS / "keda").rglob("scaledobject*.yaml"))
    assert len(files) > 4
    for file in files:
        for trigger in load(file)["spec"]["triggers"]:
            query = re.sub(r'(model_name|base)="[^"]+"', r'\1="tiny"', trigger["metadata"]["query"])
            query = query.replace('version="-"', 'version="v1"')
            samples = prometheus.ask(query)
            assert len(samples) == 1, query
            assert prometheus.numbers(query), query


def check_demand(prometheus: Prometheus) -> None:
    """No more tokens have ended than were reserved, and full pods are counted."""
    settled = sum(prometheus.numbers("sum(headgate_settled_tokens_total)"))
    reserved = sum(prometheus.numbers("sum(headgate_reserved_tokens_total)"))
    full = sum(prometheus.numbers("sum(headgate_capacity_refusals_total)"))

    of_versions = prometheus.numbers('headgate_reserved_tokens_total{version=~"v1|v2"}')
    assert len(of_versions) == 2
    assert all(of_versions)
    assert 0 < settled <= reserved
    assert full > 0
