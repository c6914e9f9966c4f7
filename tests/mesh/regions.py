"""A model with a spare version in another region: its policy, and both regions.

The route and the host of the spare version are those of docs/failover.md.
"""

import json
import sys
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import httpx

from tests.box import KEYS, digest
from tests.istio.spare_route import shown_in_page
from tests.mesh.cluster import RunningMesh, is_200
from tests.mesh.conftest import LIMITS
from tests.mesh.far_region import far_gateway
from tests.mesh.new_policy import put_policy
from tests.mesh.pods import Pod
from tests.mesh.policies import MODEL, policy
from tests.patience import wait_until
from tests.ports import free_port

SPARE_PRICE = Decimal("2.00")
"""Of a million tokens of either kind. Globex pays less than that, acme any price."""
SLOTS, QUEUE = 1, 2
GLOBEX = f"""
  globex:
    models: [llama-8b]
    failover_ceiling: {{input: 1, output: 1}}
    keys:
      - {{id: carol-key, user: carol, sha256: "{digest(KEYS["carol"])}"}}
"""


def text(pods: tuple[str, ...] = ()) -> str:
    """The policy with a spare version, and the pods of the own one."""
    own = json.dumps({"weight": 100, **({"pods": pods} if pods else {})})
    queue = f", queue_over: {QUEUE}" if pods else ""
    lines = [
        f"    pod_slots: {SLOTS}",
        "    versions:",
        f"      v1: {own}",
        "      spot: {weight: 0, upstream: 'https://llama-8b.us-east.example.org',",
        f"        prices: {{input: {SPARE_PRICE}, output: {SPARE_PRICE}}}}}",
        f"    failover: {{to: spot{queue}}}\n",
    ]
    return policy(LIMITS, MODEL + "\n".join(lines)) + GLOBEX


@dataclass
class Regions:
    """A mesh, and the gateway of another region."""

    mesh: RunningMesh
    far: str
    """The address of the other region's gateway."""
    far_vllm: str

    @property
    def own(self) -> list[Pod]:
        return self.mesh.pods_named("llama-8b-v1")

    def records(self, count: int) -> list[dict[str, Any]]:
        """The records of some more requests, in their order.

        Until the log tells its end, about a second, a request counts at its pod.
        """
        answers = [self.mesh.chat() for _ in range(count)]
        return [self.mesh.record_of(answer.headers["x-request-id"]) for answer in answers]

    def wait_for(self, version: str) -> list[dict[str, Any]]:
        """Waits until both replicas send requests to this version: the records of some in a row."""

        def in_a_row() -> list[dict[str, Any]] | None:
            records = self.records(6)
            return records if {each["version"] for each in records} == {version} else None

        return list(wait_until(in_a_row, f"answers of {version}"))

    def far_answers(self) -> int:
        """The requests that the other region has answered to their end."""
        lines = httpx.get(f"http://{self.far_vllm}/metrics").text.splitlines()
        found = (each for each in lines if each.startswith("vllm:request_success_total{"))
        return int(sum(float(each.rpartition(" ")[2]) for each in found))

    def kill(self) -> None:
        """The own pods refuse connections, and are still listed."""
        for pod in self.own:
            self.mesh.kill(pod.name)

    def unlist(self) -> None:
        """Kubernetes lists no own pod any more."""
        for pod in self.own:
            pod.ready = False
        self.mesh.publish()
        gone = [f"::{pod.ip}:8000::" for pod in self.own]
        wait_until(
            lambda: not any(each in self.mesh.admin("/clusters") for each in gone), "no own pod"
        )

    def revive(self) -> None:
        """The own pods start again, and are listed then."""
        for pod in self.own:
            if self.mesh.processes[pod.name].poll() is not None:
                self.mesh.start_pod(pod)
        for pod in self.own:
            wait_until(partial(is_200, f"http://{pod.ip}:8000/health"), pod.name)
            pod.ready = True
        self.mesh.publish()


def start_far(mesh: RunningMesh) -> Regions:
    """Starts the other region, and applies what docs/failover.md shows of it.

    There is no DNS here, and no agent that gives the gateway the authorities of the system.
    """
    ip, port, vllm, admin = mesh.addresses.next(), free_port(), free_port(), free_port()
    routes, (entry, rule) = shown_in_page()
    (host,) = entry["spec"]["hosts"]
    model = ("--model", "llama-8b", "--force-usage", "--host", ip, "--port", str(vllm))
    mesh.start("far-vllm", sys.executable, "-m", "headgate.simulator", *model)
    mesh.start_proxy("far-gateway", far_gateway(host, ip, port, vllm, admin))
    wait_until(lambda: mesh.is_ready(admin), "the other region")
    wait_until(lambda: is_200(f"http://{ip}:{vllm}/health"), "its vLLM")
    entry["spec"] |= {"resolution": "STATIC"}
    entry["spec"] |= {"endpoints": [{"address": ip, "ports": {"http": port}}]}
    rule["spec"]["trafficPolicy"]["tls"]["insecureSkipVerify"] = True
    virtual = mesh.changed("VirtualService", "llama-8b")
    virtual["spec"]["http"] = [*routes, *virtual["spec"]["http"]]
    mesh.apply(entry, rule, virtual)
    mesh.wait_until_taken(host)
    return Regions(mesh, f"{ip}:{port}", f"{ip}:{vllm}")


def name_pods(regions: Regions) -> None:
    """Writes the own pods into the policy, and waits until both replicas know them."""
    put_policy(regions.mesh, text(tuple(f"{pod.ip}:8000" for pod in regions.own)))
