"""A gateway as Prometheus sees it: Envoy's statistics with Istio's labels, and Istio's counter.

The labels of Envoy's statistics come from Istio's own template, in the pinned module.
`istio_requests_total` is made by a filter of Istio's proxy, which a plain Envoy lacks. In its place
an access log of Envoy counts the same requests, with the names that istiod put into the clusters
and endpoints.
"""

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.mesh.machine import ISTIO

Object = dict[str, Any]

_TEMPLATE = "tools/packaging/common/envoy_bootstrap.json"
_PARTS_OF_A_TEMPLATE = re.compile(r"{{- range .*?{{- end }}", re.DOTALL)
_SERVICE = r"outbound\|\d+\|[^|]*\|([^.]+)\.([^.]+)\..*"
_WORKLOAD = r"([^;]*);([^;]*);([^;]*);([^;]*).*"


def stats_config(module: Path) -> Object:
    """The `stats_config` of Istio's Envoy with the settings of istio/mesh-config.yaml."""
    config = YAML(typ="safe").load((ISTIO / "mesh-config.yaml").read_text())
    wanted = config["defaultConfig"]["proxyStatsMatcher"]["inclusionRegexps"]
    patterns = [{"safe_regex": {"regex": regex}} for regex in wanted]
    return {
        "use_all_default_tags": False,
        "stats_tags": _tags((module / _TEMPLATE).read_text()),
        "stats_matcher": {
            "inclusion_list": {"patterns": [*patterns, {"prefix": "istio"}, {"prefix": "server"}]}
        },
    }


def _tags(template: str) -> list[Object]:
    start = template.index("[", template.index('"stats_tags"'))
    text = _PARTS_OF_A_TEMPLATE.sub("", template[start:])
    tags: list[Object] = json.JSONDecoder().raw_decode(text)[0]
    return tags


def counted_requests() -> Object:
    """An EnvoyFilter with the access log that counts."""
    tags = {
        "reporter": "source",
        "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "cluster": "%UPSTREAM_CLUSTER_RAW%",
        "workload": "%UPSTREAM_METADATA(istio:workload)%",
    }
    counter = {
        "stat": {
            "name": "istio_requests_total",
            "tags": [{"name": name, "value_format": value} for name, value in tags.items()],
        },
        "value_fixed": 1,
    }
    log = {
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
            "stats_scope": {},
            "counters": [counter],
        },
    }
    network = "envoy.filters.network.http_connection_manager"
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "access_log": [log],
    }
    patch = {
        "applyTo": "NETWORK_FILTER",
        "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {"name": network}}}},
        "patch": {"operation": "MERGE", "value": {"name": network, "typed_config": manager}},
    }
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "counted-requests", "namespace": "istio-ingress"},
        "spec": {"configPatches": [patch]},
    }


def relabelings() -> list[Object]:
    """Turns names of clusters and endpoints into the labels that Istio's filter writes."""
    return [
        {"source_labels": ["__name__"], "regex": "envoy_(istio_.*)", "target_label": "__name__"},
        _label("cluster", _SERVICE, "$1", "destination_service_name"),
        _label("cluster", _SERVICE, "$2", "destination_service_namespace"),
        _label("workload", _WORKLOAD, "$1", "destination_workload"),
        _label("workload", _WORKLOAD, "$4", "destination_version"),
    ]


def _label(source: str, regex: str, value: str, target: str) -> Object:
    return {
        "source_labels": [source],
        "regex": regex,
        "replacement": value,
        "target_label": target,
    }
