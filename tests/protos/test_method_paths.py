"""The hooks answer on Envoy's method paths, with Envoy's kinds of streams."""

from typing import Any

import pytest
from envoy_data_plane.envoy.service.accesslog.v3 import AccessLogServiceBase
from envoy_data_plane.envoy.service.auth.v3 import AuthorizationBase
from envoy_data_plane.envoy.service.ext_proc.v3 import ExternalProcessorBase
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitServiceBase
from prometheus_client import CollectorRegistry

from extproc.pins.memory import MemoryPins
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.core.rpc import Method
from headgate.program.app import build_hooks
from headgate.program.parts import Parts
from headgate.program.settings import ServiceSettings
from protos.generate import ROOT
from ratelimit.store.memory import MemoryStore
from tests.extauthz.builders import NoTokens
from tests.fakes import FakeClock

BASES: dict[str, Any] = {
    "auth": AuthorizationBase,
    "ext_proc": ExternalProcessorBase,
    "ratelimit": RateLimitServiceBase,
    "accesslog": AccessLogServiceBase,
}


def envoy_method(source: str) -> tuple[str, Any]:
    """The one method of Envoy's service: its path and how it streams."""
    ((path, handler),) = BASES[source]().__mapping__().items()
    return path, handler.cardinality.value


@pytest.fixture(scope="module")
def methods() -> dict[str, Method]:
    clock = FakeClock()
    parts = Parts(
        policy=lambda: CompiledPolicy(models={}, tenants={}, keys={}),
        store=MemoryStore(),
        pins=MemoryPins(clock),
        clock=clock,
        metrics=Metrics(CollectorRegistry(), clock),
        verifier=NoTokens(),
    )
    hooks = build_hooks(ServiceSettings(), parts)
    return {method.path: method for method in hooks.methods()}


@pytest.mark.parametrize("source", BASES)
def test_a_hook_answers_on_envoys_method_path(source: str, methods: dict[str, Method]) -> None:
    path, streams = envoy_method(source)
    method = methods[path]
    assert (method.takes_stream, method.gives_stream) == (
        streams.client_streaming,
        streams.server_streaming,
    )


@pytest.mark.parametrize("source", BASES)
def test_the_source_names_envoys_method_path(source: str) -> None:
    text = (ROOT / "protos" / f"{source}.proto").read_text()
    assert f"// Method path: {envoy_method(source)[0]}\n" in text
