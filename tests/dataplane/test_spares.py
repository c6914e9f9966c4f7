"""The routes of a version whose model has a spare one; `tests/envoy/test_failover.py` runs them."""

import json
from typing import Any

from headgate.core.contract import Header
from headgate.dataplane.box import render
from headgate.dataplane.routes import route_table

SPARED = {"v1": "http://10.0.0.1:8000", "spot": "http://10.0.0.2:8000"}


def spared_routes(urls: dict[str, str]) -> list[dict[str, Any]]:
    """The routes that end at the spare version `spot` of the model `m`."""
    table = json.loads(render(route_table({"m": urls["v1"]}, {"m": urls}, {"m": "spot"})))
    routes = table["virtual_hosts"][0]["routes"]
    return [each for each in routes if "inline_cluster_specifier_plugin" in each.get("route", {})]


def test_only_the_last_try_of_a_version_goes_to_the_spare_one() -> None:
    (route,) = spared_routes(SPARED)
    plugin = route["route"]["inline_cluster_specifier_plugin"]["extension"]["typed_config"]
    matcher = plugin["cluster_matcher"]
    tries = matcher["matcher_tree"]["exact_match_map"]["map"]

    assert {count: each["action"]["name"] for count, each in tries.items()} == {"2": "model|spot|m"}
    assert matcher["on_no_match"]["action"]["name"] == "model|v1|m"
    assert route["route"]["retry_policy"]["num_retries"] == 2
    names = {each["name"] for each in route["match"]["headers"]}
    assert names == {Header.BASE, Header.VERSION, Header.SPARE}


def test_envoy_turns_to_no_spare_version_below_another_path() -> None:
    assert spared_routes({**SPARED, "spot": "http://10.0.0.2:8000/other"}) == []
