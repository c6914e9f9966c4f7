"""The built configuration, without Envoy."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core.v3 import Http2ProtocolOptions, HttpProtocolOptions
from envoy_data_plane.envoy.config.route.v3 import RateLimitHitsAddend
from envoy_data_plane.google.protobuf import Any as PackedMessage
from google.protobuf.json_format import MessageToDict

from extproc import wire
from headgate.core.answer_cache import OFFER_METADATA
from headgate.core.apis import ErrorShape
from headgate.core.body_fields import LIMITED_FIELDS
from headgate.core.contract import (
    ABSENT,
    COUNTING_METADATA,
    DOMAIN,
    OP_RESERVE,
    OP_SETTLE,
    RESERVE_ENTRIES,
    SETTLE_ADMISSION_ENTRIES,
    SETTLE_LIMITS_ENTRIES,
    SETTLE_USAGE_ENTRIES,
    Counting,
    Header,
    Namespace,
    RequestKey,
    UsageKey,
)
from headgate.core.errors import ApiError, Refusal
from headgate.dataplane.bootstrap import bootstrap, write_bootstrap
from headgate.dataplane.box import BODY_LIMIT_BYTES, OneBox, render, replace_file
from headgate.dataplane.filters import http_filters, lua, reader_source
from headgate.dataplane.listener import listener
from headgate.dataplane.replies import replies
from headgate.dataplane.routes import route_table, write_dynamic
from headgate.dataplane.upstream import BadUpstream, cluster_name, model_cluster


def box(folder: Path, **upstreams: str) -> OneBox:
    return OneBox(
        listen_host="127.0.0.1",
        listen_port=8080,
        services_sockets=[folder / "services.sock"],
        admin_socket=folder / "admin.sock",
        folder=folder,
        upstreams=upstreams,
    )


def filters(counting: Counting = Counting.PROXY) -> dict[str, dict[str, Any]]:
    """The configurations of the filters by name, in order, as Envoy reads them."""
    rendered = [json.loads(render(added)) for added in http_filters("services", 1000, counting)]
    return {added["name"]: added["typed_config"] for added in rendered}


def rate_limits() -> list[dict[str, Any]]:
    limits: list[dict[str, Any]] = filters()["headgate.ratelimit"]["rate_limits"]
    return limits


def entry_keys(limit: dict[str, Any]) -> list[str]:
    actions = (action["metadata"] for action in limit["actions"][1:] if "metadata" in action)
    return [action["descriptor_key"] for action in actions]


def every(value: Any, key: str) -> Iterator[Any]:
    """All values under this key, at any depth."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from every(part, key)


def test_filters_stand_in_the_order_of_the_request_path() -> None:
    assert list(filters()) == [
        "envoy.filters.http.ext_authz",
        "headgate.usage_tap",
        "headgate.large_body_reader",
        "headgate.body_limit",
        "headgate.large_body_guard",
        "headgate.request_reader",
        "headgate.ext_proc",
        "headgate.admission_guard",
        "headgate.ratelimit",
        "envoy.filters.http.router",
    ]


def test_where_ext_proc_counts_there_is_no_tap_and_nothing_else_differs() -> None:
    tapped, counted = filters(), filters(Counting.EXTPROC)
    del tapped["headgate.usage_tap"]
    assert list(counted) == list(tapped)
    assert [name for name in tapped if tapped[name] != counted[name]] == ["headgate.ext_proc"]


def test_ext_proc_says_with_each_call_that_it_counts_and_may_ask_for_answers() -> None:
    config = filters(Counting.EXTPROC)["headgate.ext_proc"]
    said = [{"key": key, "value": value} for key, value in (OFFER_METADATA, COUNTING_METADATA)]
    assert config["grpc_service"]["initial_metadata"] == said
    asked = ((True, True), (False, False), (False, True))
    allowed = [wire._mode(rewrites, wants_answer) for rewrites, wants_answer in asked]
    assert config["allowed_override_modes"] == [
        MessageToDict(mode, preserving_proto_field_name=True) for mode in allowed
    ]
    taken = config["metadata_options"]["receiving_namespaces"]["untyped"]
    assert taken == [Namespace.ADMISSION, Namespace.USAGE]
    assert "failure_mode_allow" not in config


def test_ext_authz_is_named_as_the_namespace_that_it_writes() -> None:
    assert next(iter(filters())) == Namespace.CALLER


def test_filters_know_no_cluster_but_the_one_they_are_given() -> None:
    assert set(every(filters(), "cluster_name")) == {"services"}


def test_every_metadata_action_has_a_default_value() -> None:
    actions = list(every(rate_limits(), "metadata"))
    assert actions
    assert {action.get("default_value") for action in actions} == {ABSENT}


def test_reserve_carries_the_contract_s_entries_in_order() -> None:
    reserve = rate_limits()[0]
    assert reserve["actions"][0]["generic_key"]["descriptor_value"] == OP_RESERVE
    assert entry_keys(reserve) == list(RESERVE_ENTRIES)
    assert reserve["hits_addend"] == {"format": "%DYNAMIC_METADATA(headgate.admission:estimate)%"}
    assert "apply_on_stream_done" not in reserve


def test_settle_carries_the_contract_s_entries_in_order_when_the_stream_is_done() -> None:
    settle = rate_limits()[1]
    assert settle["actions"][0]["generic_key"]["descriptor_value"] == OP_SETTLE
    assert entry_keys(settle) == [
        *SETTLE_ADMISSION_ENTRIES,
        *SETTLE_LIMITS_ENTRIES,
        *SETTLE_USAGE_ENTRIES,
    ]
    said = settle["actions"][-1]["extension"]["typed_config"]
    assert said["descriptor_key"] == UsageKey.ABANDONED
    assert said["skip_if_error"] is True  # else the whole descriptor would be dropped
    assert settle["hits_addend"] == {"number": 0}
    assert settle["apply_on_stream_done"] is True


def test_the_rate_limit_filter_is_closed_when_its_service_is_away() -> None:
    ratelimit = filters()["headgate.ratelimit"]
    assert ratelimit["domain"] == DOMAIN
    assert ratelimit["failure_mode_deny"] is True


@pytest.mark.parametrize("name", ["envoy.filters.http.ext_authz", "headgate.ext_proc"])
def test_hooks_do_not_fail_open(name: str) -> None:
    assert "failure_mode_allow" not in filters()[name]
    assert filters()[name]["status_on_error"] == {"code": "ServiceUnavailable"}


def test_every_request_key_is_written_by_a_reader() -> None:
    """The one of affinity writes its own, where there is a salt."""
    sources = reader_source() + lua("affinity_reader.lua")
    words = set(re.findall(r"\w+", sources))
    assert set(RequestKey) <= words


def test_the_reader_shows_every_field_that_a_policy_may_limit() -> None:
    (names,) = re.findall(r"gmatch\(\[\[(.*?)\]\]", reader_source(), re.DOTALL)
    assert names.split() == list(LIMITED_FIELDS)


def test_default_values_of_wrappers_survive_rendering() -> None:
    assert render(RateLimitHitsAddend(number=0)) == '{\n "number": 0\n}'
    packed = PackedMessage.pack(HttpProtocolOptions(max_headers_count=0))
    assert json.loads(render(packed))["max_headers_count"] == 0


def test_field_names_with_digits_are_written_as_envoy_has_them(tmp_path: Path) -> None:
    assert Http2ProtocolOptions().to_dict() == {}
    config = json.loads(render(bootstrap(box(tmp_path, m="http://127.0.0.1:1"))))
    assert {} in every(config, "http2_protocol_options")


def test_every_slow_client_has_its_end(tmp_path: Path) -> None:
    """Envoy's default for most of these is to wait forever."""
    config = json.loads(render(listener(box(tmp_path), "services")))
    manager = config["filter_chains"][0]["filters"][0]["typed_config"]

    assert config["filter_chains"][0]["transport_socket_connect_timeout"] == "10s"
    assert config["per_connection_buffer_high_watermark_timeout"] == "120s"
    assert manager["request_headers_timeout"] == "10s"
    assert manager["request_timeout"] == "300s"
    assert manager["stream_idle_timeout"] == "600s"
    assert manager["common_http_protocol_options"]["idle_timeout"] == "300s"
    assert manager["http2_protocol_options"] == {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 2**19,
    }


def test_a_model_is_routed_by_the_exact_base_header() -> None:
    table = json.loads(render(route_table({"org/m": "http://10.0.0.1:8000"})))
    route = table["virtual_hosts"][0]["routes"][0]
    assert route["match"]["headers"] == [{"name": Header.BASE, "string_match": {"exact": "org/m"}}]
    assert route["route"]["cluster"] == cluster_name("org/m")
    assert route["route"]["timeout"] == "0s"


def test_no_retry_can_run_a_generation_twice() -> None:
    table = json.loads(render(route_table({"m": "http://10.0.0.1:8000"})))
    policy = table["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"]
    assert set(policy["retry_on"].split(",")) == {
        "connect-failure",
        "refused-stream",
        "reset-before-request",
    }


@pytest.mark.parametrize(
    ("url", "kind", "address", "port"),
    [
        ("http://10.0.0.1:8000", "STATIC", "10.0.0.1", 8000),
        ("http://[::1]:8000/", "STATIC", "::1", 8000),
        ("http://vllm", "STRICT_DNS", "vllm", 80),
        ("http://localhost:8000", "STRICT_DNS", "localhost", 8000),
    ],
)
def test_an_upstream_url_becomes_a_cluster(url: str, kind: str, address: str, port: int) -> None:
    cluster = json.loads(render(model_cluster("m", url)))
    assert cluster.get("type", "STATIC") == kind
    socket = next(every(cluster, "socket_address"))
    assert (socket["address"], socket["port_value"]) == (address, port)
    assert "transport_socket" not in cluster


def test_idle_connections_are_let_go_before_vllm_does() -> None:
    cluster = json.loads(render(model_cluster("m", "http://10.0.0.1:8000")))
    vllm_keep_alive_s = 5
    idle = next(every(cluster, "common_http_protocol_options"))["idle_timeout"]
    assert float(idle.removesuffix("s")) < vllm_keep_alive_s


def test_an_https_upstream_must_show_a_certificate_for_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    cluster = json.loads(render(model_cluster("m", "https://llm.example.org/base")))
    tls = cluster["transport_socket"]["typed_config"]
    validation = tls["common_tls_context"]["validation_context"]
    assert tls["sni"] == "llm.example.org"
    assert validation["trusted_ca"] == {"filename": str(bundle)}
    assert validation["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "llm.example.org"}}
    ]
    assert next(every(cluster, "socket_address"))["port_value"] == 443


@pytest.mark.parametrize(
    "url",
    ["", "vllm:8000", "ftp://vllm", "http://", "http://vllm:99999", "http://u:p@vllm",
     "http://vllm/?a=1", "http://vllm/#x", "http://[::1"],
)  # fmt: skip
def test_a_bad_upstream_is_refused_with_its_url(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadUpstream, match="upstream '"):
        write_dynamic(box(tmp_path), {"good": "http://10.0.0.1:1", "bad": url})
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text("old")
    with path.open() as held:
        replace_file(path, "new")
        assert held.read() == "old"
    assert path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["routes.json"]


def test_everything_that_envoy_needs_is_in_the_folder(tmp_path: Path) -> None:
    fresh = box(tmp_path / "new", m="http://10.0.0.1:8000")
    write_bootstrap(fresh)
    for file in (fresh.bootstrap_file, fresh.clusters_file, fresh.routes_file):
        json.loads(file.read_text())


def test_local_replies_have_the_shapes_of_refusals() -> None:
    refusal = ApiError(Refusal.BAD_REQUEST, "x")
    as_refusal = [json.loads(refusal.body(shape, "r-1")) for shape in ErrorShape]
    for reply in replies(BODY_LIMIT_BYTES):
        for shape, like in zip(ErrorShape, as_refusal, strict=True):
            template = reply.body(shape).to_dict()
            assert template.keys() == like.keys()
            assert template["error"].keys() == like["error"].keys()
