"""Alerts, dashboard, gates and scaling read metrics that exist, and that get through."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dashboards.__main__ import BOARDS
from tests.istio.names import (
    COMPONENTS,
    ISTIO,
    ONE_BOX_ENVOY,
    PROMETHEUS_OWN,
    envoy_metrics,
    known_metrics,
    metrics_in,
)

ALWAYS_LET_THROUGH = "server."
"""Istio keeps these statistics of Envoy without a setting."""
DOCS = ISTIO.parent / "docs"
ALERT_TESTS = Path(__file__).parent / "alerts"


def load(file: Path) -> Any:
    return YAML(typ="safe").load(file.read_text())


ONE_BOX = ISTIO.parent / "examples" / "monitoring"


def rules_of(groups: list[Any]) -> list[dict[str, Any]]:
    return [rule for group in groups for rule in group["rules"]]


def sources() -> dict[str, list[dict[str, Any]]]:
    """The rules that record what the alerts read, in a mesh and in one box."""
    mesh = load(COMPONENTS / "monitoring" / "sources.yaml")["spec"]["groups"]
    return {"mesh": rules_of(mesh), "box": rules_of(load(ONE_BOX / "sources.yml")["groups"])}


def rules() -> list[dict[str, Any]]:
    """The rules that a mesh and one box share."""
    files = [COMPONENTS / "monitoring" / name for name in ("slo.yaml", "prometheusrule.yaml")]
    return [rule for file in files for rule in rules_of(load(file)["spec"]["groups"])]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def by_name() -> dict[str, dict[str, Any]]:
    """The first alert of each name: the others are less severe or have another window."""
    return {alert["alert"]: alert for alert in reversed(alerts())}


def recorded() -> set[str]:
    return {rule["record"] for rule in [*rules(), *sources()["mesh"]] if "record" in rule}


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL query of the components, with the name of its object."""
    for rule in [*rules(), *sources()["mesh"], *sources()["box"]]:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for board in BOARDS:
        for panel in board.panels:
            for line in panel.lines:
                yield f"{board.name}: {panel.title}", line.promql
    for file in (COMPONENTS / "flagger").glob("metric-*.yaml"):
        yield file.name, load(file)["spec"]["query"]
    for metric in load(COMPONENTS / "argo-rollouts" / "analysistemplate.yaml")["spec"]["metrics"]:
        yield metric["name"], metric["provider"]["prometheus"]["query"]
    for file in (COMPONENTS / "keda").rglob("scaledobject*.yaml"):
        for trigger in load(file)["spec"]["triggers"]:
            yield f"{file.parent.name}/{file.name}", trigger["metadata"]["query"]


def allowed() -> list[re.Pattern[str]]:
    config = load(ISTIO / "mesh-config.yaml")["defaultConfig"]["proxyStatsMatcher"]
    return [re.compile(pattern) for pattern in config["inclusionRegexps"]]


@pytest.mark.parametrize(("owner", "promql"), list(expressions()))
def test_every_metric_that_is_read_exists(owner: str, promql: str) -> None:
    read = metrics_in(promql)

    assert read, owner
    assert read <= known_metrics() | recorded() | PROMETHEUS_OWN | ONE_BOX_ENVOY, owner


def test_a_mesh_and_one_box_record_the_same_series() -> None:
    mesh, box = ([rule["record"] for rule in rules] for rules in sources().values())

    assert mesh == box


def test_no_scaled_object_escapes_these_tests() -> None:
    scaled = [
        file
        for file in ISTIO.rglob("*.yaml")
        for document in YAML(typ="safe").load_all(file.read_text())
        if isinstance(document, dict) and document.get("kind") == "ScaledObject"
    ]
    owners = {owner for owner, _ in expressions()}

    assert len(scaled) > 4
    assert {f"{file.parent.name}/{file.name}" for file in scaled} <= owners


def test_every_envoy_statistic_that_is_read_gets_through_istios_allow_list() -> None:
    read = {name for _, promql in expressions() for name in metrics_in(promql)} - ONE_BOX_ENVOY
    named = [envoy_metrics()[name] for name in read if name.startswith("envoy_")]
    statistics = [each for each in named if not each.startswith(ALWAYS_LET_THROUGH)]

    assert len(statistics) > 5
    for statistic in statistics:
        assert any(pattern.fullmatch(statistic) for pattern in allowed()), statistic


def test_every_pattern_of_the_allow_list_lets_something_through() -> None:
    for pattern in allowed():
        assert any(map(pattern.fullmatch, envoy_metrics().values())), pattern.pattern


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_how_bad_it_is_and_what_to_do_first(alert: dict[str, Any]) -> None:
    assert alert["labels"]["service"] == "headgate"
    assert alert["labels"]["severity"] in ("critical", "warning", "info", "none")
    assert alert["labels"]["kind"] in ("cause", "symptom", "state", "memory")
    assert re.fullmatch(r"\d+[sm]", alert["for"])
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["look"]
    page = "{{ $externalLabels.runbooks }}/alerts.md"
    assert alert["annotations"]["runbook_url"] == f"{page}#{alert['alert'].lower()}"


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_a_cause_has_a_scope_and_a_symptom_has_a_window(alert: dict[str, Any]) -> None:
    labels = alert["labels"]

    assert (labels["kind"] == "cause") == (labels.get("scope") in ("model", "all"))
    assert (labels["kind"] in ("symptom", "memory")) == ("window" in labels)


def test_alertmanager_silences_only_alerts_that_exist() -> None:
    text = (ONE_BOX / "alertmanager.yml").read_text()
    named = set(re.findall(r"Headgate\w+", "".join(re.findall(r"alertname=~?\"[^\"]+\"", text))))

    assert named
    assert named <= set(by_name())


def test_the_page_on_alerts_has_a_section_for_each_and_no_other() -> None:
    text = (DOCS / "alerts.md").read_text()
    sections = re.findall(r"^## (\w+)\n`(\w+)`, (at once|after \w+)\.", text, flags=re.MULTILINE)
    expected = {
        name: (
            alert["labels"]["severity"],
            f"after {alert['for']}" if alert["for"] != "0m" else "at once",
        )
        for name, alert in by_name().items()
    }

    assert {name: (severity, when) for name, severity, when in sections} == expected
    assert len(re.findall(r"^## ", text, flags=re.MULTILINE)) == len(expected)


def test_promtool_has_a_case_for_each_alert() -> None:
    cases = load(ALERT_TESTS / "firing.yaml")["tests"]
    samples = [sample for case in cases for sample in case["promql_expr_test"][0]["exp_samples"]]
    fired = {re.search(r'alertname="(\w+)"', sample["labels"])[1] for sample in samples}

    assert fired == set(by_name())
