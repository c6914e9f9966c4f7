"""The Telemetry of istio/components/tracing arrives in the gateway's Envoy."""

import json
from typing import Any

from headgate.istio_check.manifests import read_manifests
from tests.mesh.cluster import ISTIO, RunningMesh
from tests.mesh.test_filters import manager
from tests.patience import wait_until

COLLECTOR = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "otel-collector", "namespace": "observability"},
    "spec": {
        "clusterIP": "10.255.0.77",
        "selector": {"app": "otel-collector"},
        "ports": [{"name": "grpc-otlp", "port": 4317, "protocol": "TCP"}],
    },
}


def test_the_gateway_gets_the_tags_the_ratio_and_the_collector(mesh: RunningMesh) -> None:
    folder = ISTIO / "components" / "tracing"
    (traces,) = read_manifests(folder / "telemetry-traces.yaml")
    (bounds,) = read_manifests(folder / "destinationrule-collector.yaml")
    mesh.apply(COLLECTOR, dict(bounds.value), dict(traces.value))
    tracing: dict[str, Any] = wait_until(lambda: manager(mesh).get("tracing"), "tracing")
    tags = {tag["tag"]: tag.get("value") for tag in tracing["custom_tags"]}
    (applied,) = traces.value["spec"]["tracing"]
    expected = {name: tag["formatter"]["value"] for name, tag in applied["customTags"].items()}

    assert {name: tags.get(name) for name in expected} == expected
    assert tracing["random_sampling"] == {"value": 5}
    provider = tracing["provider"]["typed_config"]
    cluster = provider["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert cluster_limit(mesh, cluster) == 32
    assert cluster == "outbound|4317||otel-collector.observability.svc.cluster.local"


def cluster_limit(mesh: RunningMesh, name: str) -> int | None:
    """The requests at a time that the gateway sends to this cluster."""
    dump = json.loads(mesh.admin("/config_dump?resource=dynamic_active_clusters"))
    (cluster,) = [each["cluster"] for each in dump["configs"] if each["cluster"]["name"] == name]
    (threshold,) = cluster["circuit_breakers"]["thresholds"]
    limit: int | None = threshold.get("max_requests")
    return limit
