"""Each query on metrics of a mesh has an answer, on a Prometheus fed by the real gateway."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import redis

from istio.crds.generate import fetched
from tests.dashboards.prometheus import Prometheus, Target, running
from tests.istio.test_ops_metrics import COMPONENTS, expressions, load, sources
from tests.mesh.bootstrap import bootstrap
from tests.mesh.cluster import ISTIO, RunningMesh, prepared_mesh
from tests.mesh.conftest import LIMITS
from tests.mesh.policies import MODEL, policy
from tests.mesh.statistics import counted_requests, relabelings, stats_config
from tests.mesh.test_samples import MAKEFILE
from tests.mesh.traffic import send
from tests.patience import PATIENCE_S, wait_until

VERSIONS = MODEL + "    versions:\n      v1: {weight: 50}\n      v2: {weight: 50}\n"
RULES = ("sources.yaml", "slo.yaml", "prometheusrule.yaml")
CHOSEN = {
    r"\$__rate_interval": "30s",
    r"{{ ?(variables|args)\.model ?}}": "llama-8b",
    r"{{ ?args\.canary ?}}": "v2",
    r"{{ ?args\.stable ?}}": "v1",
    r"{{ ?target ?}}": "llama-8b-v2",
    r"{{ ?(interval|args\.window) ?}}": "30s",
}
_ONE_BOX = "envoy_cluster_name"
"""The label that the cluster has without Istio's bootstrap."""
_SELECTOR = re.compile(r"(?:istio|envoy)_\w+(?:{[^}]*})?")
_KINDS = ("", "status=500", "cut_after=2", "status=503")


def of_a_mesh() -> list[tuple[str, str]]:
    """Each query on a metric of Istio or its Envoy, with its owner."""
    return [
        (owner, filled(promql))
        for owner, promql in expressions()
        if re.search("istio_|envoy_", promql) and not re.search(_ONE_BOX, promql)
    ]


def filled(promql: str) -> str:
    """The query with a value for each variable."""
    for pattern, value in CHOSEN.items():
        promql = re.sub(pattern, value, promql)
    return promql


def groups() -> list[dict[str, Any]]:
    """The shipped rules of a mesh, with an evaluation every second."""
    files = [load(COMPONENTS / "monitoring" / name)["spec"]["groups"] for name in RULES]
    return [{"name": group["name"], "rules": group["rules"]} for file in files for group in file]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningMesh, Prometheus]]:
    """A mesh with traffic of every kind, and a Prometheus that scrapes its parts."""
    folder: Path = tmp_path_factory.mktemp("watched")
    lines = MAKEFILE.read_text(encoding="utf-8").splitlines()
    module = fetched(next(line for line in lines if line.startswith("ISTIO :=")).split()[-1])
    text = policy(LIMITS, VERSIONS)
    with prepared_mesh(folder, text, ISTIO / "overlays" / "staging") as mesh:
        mesh.start_pods({})
        mesh.start_istiod({})
        start_gateway(mesh, stats_config(module))
        mesh.apply(counted_requests())
        wait_until(lambda: "access_loggers.stats" in mesh.admin("/config_dump"), "the counter")
        with running(folder, targets(mesh), groups()) as prometheus, traffic(mesh):
            yield mesh, prometheus


def start_gateway(mesh: RunningMesh, statistics: dict[str, Any]) -> None:
    """Starts the gateway of `RunningMesh.start_gateway`, with other names of its statistics."""
    namespace = "istio-ingress"
    node = f"router~127.0.0.1~gateway.{namespace}~{namespace}.svc.cluster.local"
    labels = {"NAMESPACE": namespace, "LABELS": {"istio": "ingressgateway"}}
    configuration = bootstrap(node, "127.0.0.1", labels, mesh.ports_of_proxy(mesh.ports["admin"]))
    mesh.start_proxy("gateway", {**configuration, "stats_config": statistics})
    wait_until(lambda: mesh.answers(401), "the gateway")


def targets(mesh: RunningMesh) -> list[Target]:
    """The gateway, the services and the vLLMs, with the labels that the PodMonitors add."""
    gateway = f"127.0.0.1:{mesh.ports['admin']}"
    found = [Target("gateway", gateway, {}, "/stats/prometheus", relabelings())]
    found += [Target("headgate", f"{pod.ip}:9002", {}) for pod in mesh.pods_named("headgate")]
    for pod in mesh.pods_named("llama-8b"):
        labels = {"version": pod.labels["version"], "pod": pod.name}
        found.append(Target("vllm", f"{pod.ip}:8000", labels))
    return found


@contextmanager
def traffic(mesh: RunningMesh) -> Iterator[None]:
    """Sends requests that succeed, fail and break off, while the block runs."""
    over = Event()

    def run() -> None:
        while not over.is_set():
            for kind in _KINDS:
                send(mesh, map(stream_of, range(8)), **simulated(kind))

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def stream_of(conversation: int) -> dict[str, Any]:
    """A stream of this conversation, which decides for its version."""
    return {"max_tokens": 4, "stream": True, "prompt_cache_key": f"conversation {conversation}"}


def simulated(kind: str) -> dict[str, str]:
    return {"x-simulate": kind} if kind else {}


def test_a_dead_version_fires_its_alert_and_names_it(
    watched: tuple[RunningMesh, Prometheus],
) -> None:
    mesh, prometheus = watched
    dead = mesh.pods_named("llama-8b-v2")
    for pod in dead:
        mesh.kill(pod.name)
    fires = 'ALERTS{alertname="HeadgateUpstreamDead",alertstate="firing"}'
    (alert,) = wait_until(lambda: prometheus.ask(fires), fires)

    assert alert["metric"]["model"] == "llama-8b"
    assert alert["metric"]["version"] == "v2"
    for pod in dead:
        mesh.start_pod(pod)


def test_each_metric_that_a_mesh_reads_arrives_with_the_labels_that_are_asked_for(
    watched: tuple[RunningMesh, Prometheus],
) -> None:
    mesh, prometheus = watched
    selectors = {each for _, promql in of_a_mesh() for each in _SELECTOR.findall(promql)}
    assert len(selectors) > 10
    pause_of_redis(mesh)  # it is Redis' absence that the rate-limit filter counts as an error
    wait_for_samples(prometheus, selectors)


def test_each_panel_gate_and_recorded_series_of_a_mesh_has_a_number(
    watched: tuple[RunningMesh, Prometheus],
) -> None:
    _, prometheus = watched
    alerts = {rule["alert"] for group in groups() for rule in group["rules"] if "alert" in rule}
    queries = {promql for owner, promql in of_a_mesh() if owner not in alerts}
    queries |= {rule["record"] for rule in sources()["mesh"]}
    assert len(queries) > 10
    wait_for_samples(prometheus, queries)

    assert {one["metric"]["model"] for one in prometheus.ask("headgate:requests:rate5m")} == {
        "llama-8b"
    }


def wait_for_samples(prometheus: Prometheus, queries: Iterable[str]) -> None:
    """Waits until each query has had a number."""
    end_s = time.monotonic() + PATIENCE_S
    missing = set(queries)
    while missing := {query for query in missing if not prometheus.numbers(query)}:
        assert time.monotonic() < end_s, "no answer to:\n" + "\n".join(sorted(missing))
        time.sleep(1)


def pause_of_redis(mesh: RunningMesh) -> None:
    with redis.Redis.from_url(mesh.store) as client:
        client.execute_command("DEBUG", "SLEEP", "3")
