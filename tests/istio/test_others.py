"""YAML of other teams beside ours: no finding, as it cannot harm the request path."""

from dataclasses import replace
from pathlib import Path

import pytest

from headgate.istio_check.check import check
from headgate.istio_check.findings import MeshRule
from headgate.istio_check.manifests import read_manifests
from tests.istio.good import changed, good_mesh

OTHERS = sorted((Path(__file__).parent / "others").glob("*.yaml"))


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.stem)
def test_what_other_teams_have_is_no_finding(file: Path) -> None:
    mesh = good_mesh()
    both = replace(mesh, manifests=(*mesh.manifests, *read_manifests(file)))

    assert [finding.render() for finding in check(both).findings] == []


@pytest.mark.parametrize(
    ("namespace", "spec"),
    [
        ("shop", {"gateways": ["istio-ingress/headgate"]}),
        ("istio-ingress", {"gateways": ["headgat"]}),
        ("shop", {"hosts": ["llama-8b.vllm.svc.cluster.local"]}),
    ],
    ids=["on our gateway", "on no gateway", "to our model server"],
)
def test_routes_that_reach_our_gateway_or_servers_are_checked(
    namespace: str, spec: dict[str, object]
) -> None:
    host = "llama-8b.vllm.svc.cluster.local" if "hosts" in spec else "cart"
    destination = {"host": host, "port": {"number": 1}}
    route = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService"}
    route |= {"metadata": {"name": "cart", "namespace": namespace}}  # type: ignore[dict-item]
    route |= {"spec": {**spec, "http": [{"route": [{"destination": destination}]}]}}  # type: ignore[dict-item]

    assert check(changed([{"add": route}])).has_errors


def test_a_selector_in_the_root_namespace_chooses_pods_of_every_namespace() -> None:
    edit = {"object": "EnvoyFilter istio-ingress/headgate-reading", "op": "replace"}
    path = {"path": "/metadata/namespace", "value": "istio-system"}
    found = {finding.rule for finding in check(changed([edit | path])).findings}

    assert MeshRule.NO_WORKLOAD not in found


def test_an_inference_pool_gives_istiod_the_name_of_ext_proc() -> None:
    mesh = good_mesh()
    file = Path(__file__).parent / "others" / "filters-at-our-gateway.yaml"
    objects = [*mesh.manifests, *read_manifests(file)]
    pool = {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool"}
    pool |= {"metadata": {"name": "p", "namespace": "vllm"}, "spec": {}}  # type: ignore[dict-item]
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"}
    gateway |= {"metadata": {"name": "g", "namespace": "vllm"}, "spec": {}}  # type: ignore[dict-item]
    with_pool = changed([{"add": pool}, {"add": gateway}]).manifests[len(mesh.manifests) :]

    findings = check(replace(mesh, manifests=(*objects, *with_pool))).findings
    assert {finding.rule for finding in findings} == {MeshRule.FILTER_NAME}


def test_a_route_of_another_team_does_not_take_requests_at_our_gateway() -> None:
    other = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway"}
    other |= {"metadata": {"name": "a", "namespace": "a-shop"}, "spec": {}}  # type: ignore[dict-item]
    route: dict[str, object] = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService"}
    route |= {"metadata": {"name": "all", "namespace": "a-shop"}}
    route |= {"spec": {"gateways": ["a"], "http": [{"route": [{"destination": {"host": "a.b"}}]}]}}
    edits = [{"remove": "VirtualService istio-ingress/headgate-no-route"}, {"add": other}]

    [finding] = check(changed([*edits, {"add": route}])).findings
    assert finding.rule == MeshRule.NO_CATCH_ALL
    assert finding.object == "Gateway istio-ingress/headgate"
