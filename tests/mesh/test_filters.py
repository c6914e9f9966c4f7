"""The gateway's Envoy, configured by istiod, runs the same filters as one box."""

import json
from typing import Any

import betterproto2

from headgate.core.contract import CHECKED_HEADERS, Namespace
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES
from headgate.dataplane.envoy_filters import SERVICES_CLUSTER
from headgate.dataplane.filters import http_filters
from headgate.dataplane.listener import reading_rules
from tests.mesh.cluster import RunningMesh

ISTIODS_OWN = {
    "envoy.filters.http.rbac",
    "envoy.filters.http.grpc_stats",
    "envoy.filters.http.fault",
    "envoy.filters.http.cors",
}


def manager(mesh: RunningMesh) -> dict[str, Any]:
    """The connection manager that Envoy reports."""
    dump = json.loads(mesh.admin("/config_dump?resource=dynamic_listeners"))
    (config,) = dump["configs"]
    listener = config["active_state"]["listener"]
    return dict(listener["filter_chains"][0]["filters"][-1]["typed_config"])


def test_our_filters_stand_in_the_order_of_one_box(mesh: RunningMesh) -> None:
    ours = [each.name for each in http_filters(SERVICES_CLUSTER, BODY_LIMIT_BYTES)]
    running = [each["name"] for each in manager(mesh)["http_filters"]]

    assert [name for name in running if name not in ISTIODS_OWN] == ours
    assert running.index(Namespace.CALLER) < running.index("headgate.usage_tap")


def test_every_filter_that_a_patch_brings_arrives_as_it_was_rendered(mesh: RunningMesh) -> None:
    """istiod drops fields that it does not know, in silence."""
    running = {each["name"]: each["typed_config"] for each in manager(mesh)["http_filters"]}
    for expected in http_filters(SERVICES_CLUSTER, BODY_LIMIT_BYTES):
        rendered = expected.to_dict(casing=betterproto2.Casing.SNAKE)["typed_config"]
        if expected.name == Namespace.CALLER:
            continue
        assert normal(running[expected.name]) == normal(rendered), expected.name


def test_ext_authz_has_what_its_provider_cannot_say(mesh: RunningMesh) -> None:
    running = next(
        each["typed_config"]
        for each in manager(mesh)["http_filters"]
        if each["name"] == Namespace.CALLER
    )
    service = running["grpc_service"]

    assert running["encode_raw_headers"] is True
    assert running["validate_mutations"] is True
    assert running["status_on_error"] == {"code": "ServiceUnavailable"}
    allowed = {pattern["exact"] for pattern in running["allowed_headers"]["patterns"]}
    assert allowed == set(CHECKED_HEADERS)
    assert service["envoy_grpc"]["cluster_name"] == SERVICES_CLUSTER
    assert service["timeout"] == "2s"
    assert service["retry_policy"]["num_retries"] == 2


def test_requests_are_read_as_strictly_as_in_one_box(mesh: RunningMesh) -> None:
    running = manager(mesh)
    rules = reading_rules(BODY_LIMIT_BYTES, HookPath.STANDARD)
    for name, value in rules.to_dict(casing=betterproto2.Casing.SNAKE).items():
        assert normal(running[name]) == normal(value), name


def test_envoy_refuses_nothing_that_istiod_sends(mesh: RunningMesh) -> None:
    rejected = {name: count for name, count in mesh.stats().items() if "update_rejected" in name}

    assert rejected
    assert not any(rejected.values())


def normal(value: Any) -> Any:
    """The value without defaults of messages, and with numbers in one notation."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if inner not in (False, "", 0, "0")}
        return {key: normal(inner) for key, inner in kept.items()}
    if isinstance(value, list):
        return [normal(inner) for inner in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
