"""Envoy's messages in YAML are checked as strictly as Envoy's own JSON."""

from decimal import Decimal
from importlib.util import find_spec

import pytest
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from headgate.core.contract import Counting
from headgate.dataplane.envoy_filters import Attach, envoy_filters
from headgate.dataplane.strict import faults, message_type
from headgate.istio_check.extensions import ABSENT, SINCE, is_absent, matching_versions, since

HTTP = "type.googleapis.com/envoy.extensions.filters.http"
EXT_PROC = f"{HTTP}.ext_proc.v3.ExternalProcessor"
ANY_RULE = {"permissions": [{"any": True}]}
PERCENT = {"numerator": 1, "denominator": "HUNDRED"}
RBAC = f"{HTTP}.rbac.v3.RBAC"
STRUCT = "type.googleapis.com/xds.type.v3.TypedStruct"


def faults_in(config: object) -> list[str]:
    every = faults(HttpFilter, {"name": "a", "typed_config": config})
    return [f"{'.'.join(map(str, fault.path[1:]))}: {fault.problem}" for fault in every]


@pytest.mark.parametrize("counting", Counting)
@pytest.mark.parametrize("attach", Attach)
def test_whatever_is_rendered_is_without_a_fault(attach: Attach, counting: Counting) -> None:
    for rendered in envoy_filters(attach, counting):
        spec = rendered["spec"]
        assert isinstance(spec, dict)
        for patch in spec["configPatches"]:
            kind = HttpFilter if patch["applyTo"] == "HTTP_FILTER" else Filter
            assert list(faults(kind, patch["patch"]["value"])) == []


@pytest.mark.parametrize(
    "config",
    [
        {"@type": EXT_PROC, "messageTimeout": "0.25s", "failureModeAllow": False},
        {"@type": EXT_PROC, "message_timeout": "10s", "grpc_service": None},
        {"@type": RBAC, "rules": {"action": "LOG", "policies": {"a": ANY_RULE}}},
        {"@type": RBAC, "rules": {"action": 1}},
        {"@type": f"{HTTP}.buffer.v3.Buffer", "max_request_bytes": "16"},
        {"@type": f"{HTTP}.fault.v3.HTTPFault", "abort": {"percentage": PERCENT}},
        {"@type": f"{HTTP}.lua.v3.LuaPerRoute", "filter_context": {"a": [1, Decimal("0.5")]}},
        {"@type": STRUCT, "type_url": EXT_PROC, "value": {"failure_mode_allow": True}},
        {"@type": f"{HTTP}.golang.v3alpha.Config", "library_id": "a"},
        {"@type": "type.googleapis.com/istio.networking.v1alpha3.Something", "a": 1},
    ],
)
def test_what_envoy_takes_has_no_fault(config: object) -> None:
    assert faults_in(config) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ([], [": is a mapping with @type"]),
        ({}, [": lacks @type"]),
        ({"@type": "Lua"}, ["@type: 'Lua' is no type of Envoy's API"]),
        (
            {"@type": f"{HTTP}.lua.v3.Lau"},
            [f"@type: '{HTTP}.lua.v3.Lau' is no type of Envoy's API"],
        ),
        (
            {"@type": EXT_PROC, "grpc_service": {"envoy_grpc": {"cluster": "a"}}},
            [
                "grpc_service.envoy_grpc.cluster: GrpcServiceEnvoyGrpc has no cluster;"
                " istiod drops it"
            ],
        ),
        (
            {"@type": EXT_PROC, "message_timeout": "250"},
            ["message_timeout: '250' is no duration"],
        ),
        (
            {"@type": EXT_PROC, "message_timeout": 250},
            ["message_timeout: 250 is no duration"],
        ),
        ({"@type": EXT_PROC, "request_attributes": "a"}, ["request_attributes: is a list"]),
        ({"@type": EXT_PROC, "request_attributes": [1]}, ["request_attributes.0: 1 is no text"]),
        (
            {"@type": EXT_PROC, "failure_mode_allow": "no"},
            ["failure_mode_allow: 'no' is neither true nor false"],
        ),
        (
            {"@type": f"{HTTP}.buffer.v3.Buffer", "max_request_bytes": "16 MiB"},
            ["max_request_bytes: '16 MiB' is no whole number"],
        ),
        (
            {"@type": RBAC, "rules": {"policies": []}},
            ["rules.policies: is a mapping of names to values"],
        ),
        (
            {"@type": RBAC, "rules": {"action": "PERMIT"}},
            ["rules.action: 'PERMIT' is not one of its values"],
        ),
        (
            {"@type": EXT_PROC, "grpc_service": {"envoy_grpc": {}, "google_grpc": {}}},
            ["grpc_service.google_grpc: google_grpc and envoy_grpc exclude each other"],
        ),
        (
            {"@type": STRUCT, "type_url": EXT_PROC, "value": {"failure_mode_alow": True}},
            [
                "value.failure_mode_alow: ExternalProcessor has no failure_mode_alow;"
                " istiod drops it"
            ],
        ),
    ],
)
def test_what_envoy_does_not_take_is_a_fault_with_its_path(
    config: object, expected: list[str]
) -> None:
    assert faults_in(config) == expected


@pytest.mark.parametrize(
    "type_url", ["", "type.googleapis.com/os.System", f"{HTTP}.lua.v3", "type.googleapis.com/..a.B"]
)
def test_a_type_that_envoy_does_not_have_is_none(type_url: str) -> None:
    assert message_type(type_url) is None


def test_extensions_are_told_by_the_name_of_their_type() -> None:
    assert is_absent("envoy.extensions.filters.http.mcp.v3.Mcp")
    assert not is_absent("envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor")
    assert since("envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter") == "1.31"
    assert since("envoy.extensions.filters.http.lua.v3.Lua") is None
    assert not set(ABSENT) & set(SINCE)


@pytest.mark.parametrize("start", [*ABSENT, *SINCE])
def test_extensions_that_are_told_exist_in_envoy(start: str) -> None:
    package = start.rstrip(".") if start.endswith(".") else start.rpartition(".")[0]

    assert find_spec(f"envoy_data_plane.{package}")


@pytest.mark.parametrize(
    ("pattern", "versions"),
    [
        ("", ["1.29", "1.30", "1.31"]),
        (r"^1\.3[0-9].*", ["1.30", "1.31"]),
        (r"^1\.2[0-8].*", []),
        ("(", []),
        ("x" * 2000, []),
    ],
)
def test_the_versions_that_a_patch_goes_to(pattern: str, versions: list[str]) -> None:
    assert matching_versions(pattern) == versions
