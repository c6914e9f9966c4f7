"""This machine cannot run all of istio/: the changes to its objects and options."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from tests.mesh.kube_api import Object
from tests.mesh.pods import Pod

ROOT = Path(__file__).resolve().parents[2]
ISTIO = ROOT / "istio"
CRDS = {
    "networking": "virtualservices destinationrules gateways envoyfilters serviceentries sidecars"
    " workloadentries workloadgroups proxyconfigs",
    "security": "authorizationpolicies peerauthentications requestauthentications",
    "telemetry": "telemetries",
    "extensions": "wasmplugins trafficextensions",
}
ISTIOD_ENV = {
    "ENABLE_CA_SERVER": "false",
    "PILOT_CERT_PROVIDER": "none",
    "PILOT_ENABLE_GATEWAY_API": "false",
    "POD_NAMESPACE": "istio-system",
    "POD_NAME": "istiod",
    # Filters of Istio's own proxy, which a plain Envoy lacks.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_DISABLE_MX_ALPN": "true",
    "PILOT_ENABLE_ALPN_FILTER": "false",
}


MUTUAL_ENV = {
    "ENABLE_CA_SERVER": "true",
    "XDS_AUTH_PLAINTEXT": "true",  # tokens count over clear text, too
}
"""istiod signs certificates."""


def ground() -> list[Object]:
    """The objects that a cluster with Istio has before ours."""
    crds = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    kinds = [f"{kind}.{group}.istio.io" for group, kinds in CRDS.items() for kind in kinds.split()]
    namespace = {"apiVersion": "v1", "kind": "Namespace"}
    namespaces = ("istio-system", "istio-ingress", "headgate-api", "apps")
    return [
        *({**crds, "metadata": {"name": name}} for name in kinds),
        *({**namespace, "metadata": {"name": name}} for name in namespaces),
    ]


def swapped(objects: list[Object], doors: Mapping[str, int]) -> list[Object]:
    """The objects as this machine can run them; `doors` has a port for each Gateway."""
    changed = []
    for manifest in objects:
        if manifest["metadata"]["name"] == "headgate-metrics":
            continue  # istio.stats is a filter of Istio's own proxy
        if manifest["kind"] == "Gateway" and "servers" in manifest["spec"]:
            server = manifest["spec"]["servers"][0]
            port = doors[manifest["metadata"]["name"]]
            server |= {"port": {"number": port, "name": "http", "protocol": "HTTP"}}
            server |= {"bind": "127.0.0.1"}
            server.pop("tls", None)  # as its Secret is not there
        changed.append(manifest)
    return changed


def mesh_config(*, mutual: bool) -> Object:
    """istio/mesh-config.yaml, without mTLS unless there are certificates."""
    config = YAML(typ="safe").load((ISTIO / "mesh-config.yaml").read_text())
    return {**config, "enableAutoMtls": mutual, "enableTracing": False}


def options_of(pod: Pod, swaps: Mapping[str, str], more: Iterable[str]) -> list[str]:
    """The command line of a pod: as its YAML has it, with the options that are swapped.

    An option `--name=value` of `more` takes the place of the pod's own, and POD_IP in it is the
    pod's address.
    """
    wanted = dict(option.replace("POD_IP", pod.ip).partition("=")[::2] for option in more)
    own = (arg for arg in pod.args if arg.partition("=")[0] not in {**swaps, **wanted})
    return [*own, *(f"{name}={value}" for name, value in {**swaps, **wanted}.items())]
