"""Canary, scaling and monitoring objects fit the models that they are for."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headgate.canary.queries import By, ModelPart, gates
from headgate.dataplane.tracing import TAGS
from headgate.istio_check.kustomize import build
from tests.istio.names import COMPONENTS, ISTIO

Objects = dict[tuple[str, str], dict[str, Any]]
KEDA = ("keda", "keda/llama-8b-canary", "keda/qwen-8b", "keda/llama-70b", "keda/lora")
OPTIONAL = ("monitoring", "keda", "spot", "flagger", "argo-rollouts")


def load(file: Path) -> Any:
    return YAML(typ="safe").load(file.read_text())


def test_traces_have_the_tags_of_one_box_by_commands_that_every_envoy_has() -> None:
    """An unknown command would make the gateway refuse its listener. Older ones lack COALESCE."""
    (tracing,) = load(COMPONENTS / "tracing" / "telemetry-traces.yaml")["spec"]["tracing"]
    tags = {name: tag["formatter"]["value"] for name, tag in tracing["customTags"].items()}

    assert tags == {name: first(value) for name, value in TAGS.items() if name != "http.url"}


def first(value: str) -> str:
    """The first place of a value that has several."""
    several = re.fullmatch(r"%COALESCE\((.*)\)%", value)
    if several is None:
        return value
    return f"%DYNAMIC_METADATA({json.loads(several[1])['operators'][0]['param']})%"


@pytest.fixture
def with_components(tmp_path: Path) -> Any:
    """Builds the overlay for production with components added."""

    def built(*names: str) -> Objects:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [str(ISTIO / "overlays" / "prod")],
            "components": [str(COMPONENTS / name) for name in names],
        }
        with (tmp_path / "kustomization.yaml").open("w") as file:
            YAML().dump(kustomization, file)
        return {(manifest.kind, manifest.name): manifest.value for manifest in build(tmp_path)}

    return built


@pytest.mark.parametrize("controller", ["flagger", "argo-rollouts"])
def test_the_components_build_together(with_components: Any, controller: str) -> None:
    built = with_components("monitoring", "keda", controller)

    assert ("PrometheusRule", "headgate") in built
    assert ("ScaledObject", "llama-8b-v1") in built
    assert ("Deployment", "llama-8b-v2") not in built


def test_flaggers_gates_ask_what_the_command_asks() -> None:
    model, window = "{{ variables.model }}", "{{ interval }}"
    stable = ModelPart(model, "{{ target }}-primary", window, By.WORKLOAD)
    canary = ModelPart(model, "{{ target }}", window, By.WORKLOAD)
    files = (COMPONENTS / "flagger").glob("metric-*.yaml")
    asked = {file.stem.removeprefix("metric-"): load(file)["spec"]["query"] for file in files}

    assert asked == gates(stable, canary)


def test_argos_gates_ask_what_the_command_asks() -> None:
    template = load(COMPONENTS / "argo-rollouts" / "analysistemplate.yaml")["spec"]
    parts = [
        ModelPart("{{args.model}}", f"{{{{args.{name}}}}}", "{{args.window}}") for name in PARTS
    ]

    asked = {
        metric["name"]: metric["provider"]["prometheus"]["query"] for metric in template["metrics"]
    }
    assert asked == gates(*parts)
    assert {argument["name"] for argument in template["args"]} == {"model", "window", *PARTS}


PARTS = ("stable", "canary")


def test_argos_gates_take_nan_and_nothing_neither_for_good_nor_for_bad() -> None:
    template = load(COMPONENTS / "argo-rollouts" / "analysistemplate.yaml")["spec"]
    for metric in template["metrics"]:
        conditions = metric["successCondition"], metric["failureCondition"]
        for condition in conditions:
            guarded = condition.startswith("len(result) > 0 && !isNaN(result[0]) && ")
            assert guarded or condition == "false", metric["name"]


def test_flagger_asks_for_samples_first_and_uses_every_gate(with_components: Any) -> None:
    built = with_components("flagger")
    analysis = built["Canary", "llama-8b-v1"]["spec"]["analysis"]
    named = [metric["templateRef"]["name"] for metric in analysis["metrics"]]

    assert named[0] == "headgate-requests"
    assert set(named) == {name for kind, name in built if kind == "MetricTemplate"}
    assert {metric["interval"] for metric in analysis["metrics"]} == {analysis["interval"]}


def test_flagger_owns_the_weights_alone(with_components: Any) -> None:
    built = with_components("flagger")

    for kind in ("VirtualService", "DestinationRule", "Service"):
        assert (kind, "llama-8b") not in built
    assert built["Canary", "llama-8b-v1"]["spec"]["targetRef"]["name"] == "llama-8b-v1"
    assert ("Deployment", "llama-8b-v1") in built


def test_flaggers_routes_keep_the_models_traffic_policy_and_retries(with_components: Any) -> None:
    service = with_components("flagger")["Canary", "llama-8b-v1"]["spec"]["service"]
    plain = with_components()
    route = plain["VirtualService", "llama-8b"]["spec"]["http"][-1]

    policy = plain["DestinationRule", "llama-8b"]["spec"]["trafficPolicy"]
    assert service["trafficPolicy"] == policy
    assert service["retries"] == route["retries"]
    assert service["match"] == route["match"]


def test_argo_finds_the_route_and_the_subsets_that_it_writes(with_components: Any) -> None:
    built = with_components("argo-rollouts")
    istio = built["Rollout", "llama-8b"]["spec"]["strategy"]["canary"]["trafficRouting"]["istio"]
    routes = built["VirtualService", "llama-8b"]["spec"]["http"]
    subsets = [subset["name"] for subset in built["DestinationRule", "llama-8b"]["spec"]["subsets"]]

    assert istio["virtualService"]["routes"] == [route["name"] for route in routes]
    assert subsets == [
        istio["destinationRule"]["stableSubsetName"],
        istio["destinationRule"]["canarySubsetName"],
    ]
    split = routes[0]["route"]
    assert [destination["destination"]["subset"] for destination in split] == subsets
    assert [destination["weight"] for destination in split] == [100, 0]


def test_argos_pods_may_change_their_version(with_components: Any) -> None:
    built = with_components("argo-rollouts")
    deployment, rollout = built["Deployment", "llama-8b-v1"], built["Rollout", "llama-8b"]

    assert deployment["spec"]["replicas"] == 0
    assert deployment["spec"]["selector"]["matchLabels"] == {"app": "llama-8b"}
    assert rollout["spec"]["selector"]["matchLabels"] == {"app": "llama-8b"}
    assert rollout["spec"]["workloadRef"]["name"] == deployment["metadata"]["name"]


def test_argo_scales_before_it_gives_weight_and_asks_its_gates_after_each() -> None:
    steps = load(COMPONENTS / "argo-rollouts" / "rollout.yaml")["spec"]["strategy"]["canary"][
        "steps"
    ]
    kinds = [next(iter(step)) for step in steps]

    assert kinds[0] == "setCanaryScale"
    for at, kind in enumerate(kinds):
        if kind == "setWeight":
            assert kinds[at + 1] == "pause"
            assert steps[at]["setWeight"] == 100 or kinds[at + 2] == "analysis"


def test_keda_scales_what_no_other_autoscaler_scales(with_components: Any) -> None:
    built = with_components(*KEDA)
    scaled = {
        value["spec"]["scaleTargetRef"]["name"]
        for (kind, _), value in built.items()
        if kind == "ScaledObject"
    }
    others = {
        value["spec"]["scaleTargetRef"]["name"]
        for (kind, _), value in built.items()
        if kind == "HorizontalPodAutoscaler"
    }

    assert len(scaled) == len(KEDA)
    for name in scaled:
        assert "replicas" not in built["Deployment", name]["spec"]
    assert not scaled & others


def test_keda_waits_longer_than_a_pod_loads_and_drains(with_components: Any) -> None:
    built = with_components(*KEDA)
    for (kind, _), value in built.items():
        if kind != "ScaledObject":
            continue
        spec = value["spec"]
        target = built["Deployment", spec["scaleTargetRef"]["name"]]["spec"]["template"]["spec"]
        probe = target["containers"][0]["startupProbe"]
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        loading_s = probe["periodSeconds"] * probe["failureThreshold"]

        assert down["stabilizationWindowSeconds"] > loading_s
        assert down["policies"] == [
            {"type": "Pods", "value": 1, "periodSeconds": down["policies"][0]["periodSeconds"]}
        ]
        assert down["policies"][0]["periodSeconds"] > target["terminationGracePeriodSeconds"]
        assert spec["minReplicaCount"] > 0


def test_each_model_and_the_canary_is_scaled_by_the_same_queries(with_components: Any) -> None:
    built = with_components(*KEDA)
    scaled = {name: value for (kind, name), value in built.items() if kind == "ScaledObject"}
    asked = {name: neutral(value) for name, value in scaled.items()}

    assert len(asked["llama-8b-v1"]) == 4
    assert all(queries == asked["llama-8b-v1"] for queries in asked.values())


def neutral(scaled: dict[str, Any]) -> list[str]:
    """The queries without the names of the model."""
    names = r'(base|deployment|model_name)="[^"]+"|,?version=~?"[^"]+"|\[\d+m\]'
    queries = (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])
    return [re.sub(names, "", query) for query in queries]


def test_a_query_without_an_answer_takes_no_pod_away(with_components: Any) -> None:
    for (kind, _), value in with_components(*KEDA).items():
        if kind == "ScaledObject":
            triggers = value["spec"]["triggers"]
            assert {each["metadata"]["ignoreNullValues"] for each in triggers} == {"false"}
            assert value["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_a_pod_on_a_spot_node_is_empty_before_the_node_is_gone(with_components: Any) -> None:
    notice_s = 120
    pod = with_components("spot")["Deployment", "llama-8b-v1"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    _, pause_s = container["lifecycle"]["preStop"]["exec"]["command"]
    (argument,) = (each for each in container["args"] if each.startswith("--shutdown-timeout="))
    grace_s = pod["spec"]["terminationGracePeriodSeconds"]
    drain = re.search(r"terminationDrainDuration: (\d+)s", str(pod["metadata"]["annotations"]))

    assert int(pause_s) + int(argument.partition("=")[2]) < grace_s < notice_s
    assert drain is not None
    assert int(argument.partition("=")[2]) < int(drain[1]) < grace_s


def test_spot_and_scaling_go_together(with_components: Any) -> None:
    built = with_components("keda", "spot")
    pod = built["Deployment", "llama-8b-v1"]["spec"]["template"]
    (spread,) = pod["spec"]["topologySpreadConstraints"]

    assert pod["spec"]["tolerations"][0]["key"] == "headgate.dev/spot"
    assert spread["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_sidecars_show_the_metrics_of_every_pod_that_is_monitored(with_components: Any) -> None:
    built = with_components("monitoring")
    ports = {"headgate": "http-admin"}
    monitored = 0
    for (kind, name), value in built.items():
        if kind != "Deployment":
            continue
        pod = value["spec"]["template"]
        if name == "headgate" or "headgate.dev/serves" in pod["metadata"]["labels"]:
            port = ports.get(name, "http")
            named = {
                port["name"]: port["containerPort"]
                for port in pod["spec"]["containers"][0]["ports"]
            }
            said = pod["metadata"]["annotations"]
            assert said["prometheus.io/scrape"] == "true", name
            assert said["prometheus.io/port"] == str(named[port]), name
            assert said["prometheus.io/path"] == "/metrics", name
            monitored += 1
    assert monitored > 1


def test_monitors_read_the_sidecars_port_in_clear_text() -> None:
    monitor = load(COMPONENTS / "monitoring" / "podmonitor-vllm.yaml")["spec"]
    service = load(COMPONENTS / "monitoring" / "servicemonitor-headgate.yaml")["spec"]
    for endpoint in (*monitor["podMetricsEndpoints"], *service["endpoints"]):
        to = next(
            relabeling
            for relabeling in endpoint["relabelings"]
            if relabeling["targetLabel"] == "__address__"
        )
        port = {"http": 8000, "http-admin": 9002}[endpoint["port"]]
        moved = re.sub(to["regex"], to["replacement"].replace("$", "\\"), f"[fd00::1]:{port}")
        assert moved == "[fd00::1]:15020"


def test_vllms_metrics_get_the_labels_that_tell_a_canary() -> None:
    monitor = load(COMPONENTS / "monitoring" / "podmonitor-vllm.yaml")["spec"]
    rules = monitor["podMetricsEndpoints"][0]["relabelings"]
    workload = next(relabeling for relabeling in rules if relabeling["targetLabel"] == "workload")

    assert {one.value for one in By} <= {one["targetLabel"] for one in rules}
    assert (
        re.fullmatch(workload["regex"], "llama-8b-v1-primary-7c9f6b5d4")[1] == "llama-8b-v1-primary"
    )


def test_every_patch_that_deletes_stands_in_a_file_of_its_own() -> None:
    """kubectl 1.32 (kustomize 5.5) dies of a file with several deletions."""
    deleting = [
        file for file in COMPONENTS.glob("*/*.yaml") if "$patch: delete" in file.read_text()
    ]

    assert deleting
    for file in deleting:
        assert len(list(YAML(typ="safe").load_all(file.read_text()))) == 1, file
