"""The pods of every model agree with their other objects, with the policy, and with themselves."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ruamel.yaml import YAML

from headgate.istio_check.kustomize import build
from tests.istio.names import ISTIO

OVERLAY = ISTIO / "overlays" / "prod"
OBJECTS = [manifest.value for manifest in build(OVERLAY)]
POLICY = YAML(typ="safe").load((OVERLAY / "headgate.yaml").read_text())["models"]


@dataclass(frozen=True)
class ModelServer:
    """The pods of one Deployment or leader that answer for a model."""

    name: str
    workload: dict[str, Any]
    template: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self.template["spec"]
        return pod

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.pod["containers"]
        return dict(container)

    def flag(self, name: str) -> str:
        (value,) = (
            arg.partition("=")[2] for arg in self.container["args"] if arg.startswith(f"--{name}=")
        )
        return str(value)

    @property
    def startup_s(self) -> int:
        probe = self.container["startupProbe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])


def servers() -> Iterator[ModelServer]:
    for value in OBJECTS:
        spec = value.get("spec", {})
        if value["kind"] == "LeaderWorkerSet":
            template = spec["leaderWorkerTemplate"]["leaderTemplate"]
        elif value["kind"] == "Deployment":
            template = spec["template"]
        else:
            continue
        if "headgate.dev/serves" in template["metadata"]["labels"]:
            yield ModelServer(value["metadata"]["name"], value, template)


SERVERS = {server.name: server for server in servers()}
each_server = pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [
        value
        for value in OBJECTS
        if value["kind"] == kind and value["metadata"]["namespace"] == "vllm"
    ]


def selecting(kind: str, key: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    selected = []
    for value in of_kind(kind):
        selector = value["spec"][key]
        if (selector.get("matchLabels", selector)).items() <= labels.items():
            selected.append(value)
    return selected


def test_every_model_of_the_policy_has_pods() -> None:
    bases = {name for name, model in POLICY.items() if "base" not in model}

    assert {server.labels["app"] for server in SERVERS.values()} == bases


@each_server
def test_streams_may_end_before_anything_is_killed(server: ModelServer) -> None:
    (_, wait_s) = server.container["lifecycle"]["preStop"]["exec"]["command"]
    sidecar = server.template["metadata"]["annotations"]["proxy.istio.io/config"]
    (sidecar_s,) = re.findall(r"terminationDrainDuration: (\d+)s", sidecar)
    streams_s = int(wait_s) + int(server.flag("shutdown-timeout"))

    assert streams_s < int(sidecar_s) < server.pod["terminationGracePeriodSeconds"]
    assert int(wait_s) > 2 * server.container["readinessProbe"]["periodSeconds"]


@each_server
def test_a_pod_that_loads_is_no_failed_rollout(server: ModelServer) -> None:
    if server.workload["kind"] == "Deployment":
        assert server.workload["spec"]["progressDeadlineSeconds"] > server.startup_s
    assert server.startup_s >= 1200


@each_server
def test_flags_say_what_the_policy_says(server: ModelServer) -> None:
    model = POLICY[server.labels["app"]]

    assert server.flag("served-model-name") == server.labels["app"]
    assert int(server.flag("max-model-len")) == model["context_tokens"]
    assert ("--enable-force-include-usage" in server.container["args"]) == model["forces_usage"]


@each_server
def test_every_probe_and_service_finds_its_port(server: ModelServer) -> None:
    ports = {port["name"]: port["containerPort"] for port in server.container["ports"]}
    probes = [server.container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness")]
    services = selecting("Service", "selector", server.labels)

    assert services
    assert {probe["port"] for probe in probes} <= set(ports)
    for service in services:
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)


@each_server
def test_an_account_a_budget_and_a_network_policy_are_its_own(server: ModelServer) -> None:
    accounts = {account["metadata"]["name"] for account in of_kind("ServiceAccount")}

    assert server.pod["serviceAccountName"] in accounts
    assert len(selecting("PodDisruptionBudget", "selector", server.labels)) == 1
    assert selecting("NetworkPolicy", "podSelector", server.labels)


@each_server
def test_volumes_that_are_mounted_and_claimed_exist(server: ModelServer) -> None:
    volumes = {volume["name"]: volume for volume in server.pod["volumes"]}
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}

    assert {mount["name"] for mount in server.container["volumeMounts"]} == set(volumes)
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim")
        assert claim is None or claim["claimName"] in claims


def test_selectors_of_workloads_choose_their_own_pods_alone() -> None:
    for deployment in of_kind("Deployment"):
        labels = deployment["spec"]["selector"]["matchLabels"]
        chosen = [name for name, each in SERVERS.items() if labels.items() <= each.labels.items()]
        assert chosen == [deployment["metadata"]["name"]]


def test_gpus_of_a_pod_are_those_of_its_tensor_parallelism() -> None:
    for server in SERVERS.values():
        gpus = server.container["resources"]["limits"]["nvidia.com/gpu"]
        parallel = [arg for arg in server.container["args"] if "--tensor-parallel-size" in arg]
        assert gpus == (parallel[0].partition("=")[2] if parallel else "1"), server.name


def test_both_nodes_of_a_group_run_the_same_model_alike() -> None:
    (group,) = of_kind("LeaderWorkerSet")
    template = group["spec"]["leaderWorkerTemplate"]
    leader, worker = (
        template[f"{role}Template"]["spec"]["containers"][0] for role in ("leader", "worker")
    )
    shared = ("parallel", "nnodes", "master", "max-model-len")

    def alike(container: dict[str, Any]) -> set[str]:
        model, *flags = container["args"]
        return {model, *(flag for flag in flags if any(word in flag for word in shared))}

    assert leader["image"] == worker["image"]
    assert alike(leader) == alike(worker)
    labels = template["workerTemplate"]["metadata"]["labels"]
    assert not selecting("Service", "selector", labels)
    assert selecting("NetworkPolicy", "podSelector", labels)
