"""The Telemetry of istio/components/tracing arrives in the gateway's Envoy."""

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
    (traces,) = read_manifests(ISTIO / "components" / "tracing" / "telemetry-traces.yaml")
    mesh.apply(COLLECTOR, dict(traces.value))
    tracing: dict[str, Any] = wait_until(lambda: manager(mesh).get("tracing"), "tracing")
    tags = {tag["tag"]: tag.get("value") for tag in tracing["custom_tags"]}
    (applied,) = traces.value["spec"]["tracing"]
    expected = {name: tag["formatter"]["value"] for name, tag in applied["customTags"].items()}

    assert {name: tags.get(name) for name in expected} == expected
    assert tracing["random_sampling"] == {"value": 5}
    provider = tracing["provider"]["typed_config"]
    cluster = provider["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert cluster == "outbound|4317||otel-collector.observability.svc.cluster.local"
