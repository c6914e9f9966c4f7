"""No request makes a label value: metrics stay small under any traffic."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from extproc.pins.memory import MemoryPins
from headgate._gen.ext_proc_pb2 import ProcessingRequest
from headgate._gen.ratelimit_pb2 import RateLimitRequest
from headgate.core.metrics import Metrics
from headgate.core.policy import Caller
from headgate.program.app import Hooks, build_hooks
from headgate.program.parts import Parts
from headgate.program.settings import ServiceSettings
from ratelimit.store.memory import MemoryStore
from tests.accesslog.entries import ADMISSION, USAGE, entry, message
from tests.extauthz.builders import NoTokens, check_request
from tests.extproc.builders import MODELS, POLICY, headers_message
from tests.fakes import FakeClock
from tests.ratelimit.calls import reserve, settle
from tests.rls_config.builders import domains

MARK = "stranger"
CONFIGURED = domains(
    "domain: shop\ndescriptors:\n- {key: user, detailed_metric: true, value_to_metric: true,"
    " rate_limit: {unit: day, requests_per_unit: 10}}\n"
)
REQUESTS = 10_000


@dataclass
class Rig:
    hooks: Hooks
    counted: CollectorRegistry
    random: Random

    def stranger(self) -> str:
        """A word that no earlier request held."""
        return f"{MARK}-{self.random.randrange(10**12)}"

    def maybe(self, known: str) -> str:
        """The known word, or a new one."""
        return known if self.random.random() < 0.5 else self.stranger()

    def series(self) -> set[tuple[str, ...]]:
        """Each time series: its name and its label values."""
        samples = (sample for metric in self.counted.collect() for sample in metric.samples)
        return {(sample.name, *sample.labels.values()) for sample in samples}


@pytest.fixture
def rig() -> Rig:
    counted, clock = CollectorRegistry(), FakeClock()
    metrics = Metrics(counted, clock)
    store, pins = MemoryStore(), MemoryPins(clock)
    parts = Parts(
        policy=lambda: POLICY,
        store=store,
        pins=pins,
        clock=clock,
        metrics=metrics,
        verifier=NoTokens(),
        domains=lambda: CONFIGURED,
    )
    hooks = build_hooks(ServiceSettings(), parts)
    return Rig(hooks, counted, Random(7))


async def check(rig: Rig) -> None:
    key = ("authorization", f"Bearer {rig.stranger()}".encode())
    path = rig.maybe("/v1/chat/completions")
    method = rig.maybe("POST")
    address = f"192.0.{rig.random.randrange(256)}.{rig.random.randrange(256)}"
    await rig.hooks.authorization.check(
        check_request(key, path=path, method=method, address=address), None
    )


class WithoutMetadata:
    """The context of a call of an Envoy whose services do not count."""

    def metadata(self, _name: str) -> None:
        return None


async def process(rig: Rig) -> None:
    caller = Caller(rig.maybe("acme"), rig.stranger(), rig.stranger())
    sent = headers_message({"model": rig.maybe("tiny")}, rig.maybe("/v1/completions"), caller)

    async def messages() -> AsyncIterator[ProcessingRequest]:
        yield sent

    context: Any = WithoutMetadata()
    async for _ in rig.hooks.processor.process(messages(), context):
        pass


async def limit(rig: Rig) -> None:
    context: Any = None
    for call in (reserve, settle):
        sent = call(reservation=rig.stranger(), tenant=rig.maybe("acme"))
        await rig.hooks.rate_limit.should_rate_limit(sent, context)
    for domain, key in ((rig.stranger(), rig.stranger()), ("shop", rig.maybe("user"))):
        other = RateLimitRequest(domain=domain, hits_addend=rig.random.randrange(1, 20))
        described = other.descriptors.add()
        described.entries.add(key=key, value=rig.stranger())
        if rig.random.random() < 0.1:
            described.limit.requests_per_unit, described.limit.unit = 5, 1
        await rig.hooks.rate_limit.should_rate_limit(other, context)


async def log(rig: Rig) -> None:
    admission = {**ADMISSION, "reservation": rig.stranger()}
    for name, known in (("tenant", "acme"), ("model", "tiny"), ("api", "chat"), ("user", "alice")):
        admission[name] = rig.maybe(known)
    logged = entry(
        path=rig.maybe("/v1/completions"),
        request={"body": "read", "model": rig.stranger()},
        caller={"tenant": rig.stranger()},
        admission=admission if rig.random.random() < 0.9 else {},
        usage={**USAGE, "status": rig.stranger()},
        status=rig.random.choice((200, 429, 0, 999, 70_000)),
        details=rig.stranger(),
    )
    await rig.hooks.access_log.handle(message(logged))


@pytest.mark.parametrize("call", [check, process, limit, log])
async def test_10_000_requests_of_strangers_add_no_label_value(rig: Rig, call: Any) -> None:
    for _ in range(REQUESTS):
        await call(rig)

    words = {word for series in rig.series() for word in series}
    assert not {word for word in words if MARK in word}
    assert len(rig.series()) < 60 + 40 * len(MODELS)


async def test_a_request_of_a_known_caller_is_still_counted_by_name(rig: Rig) -> None:
    admission = {**ADMISSION, "model": "tiny"}
    await rig.hooks.access_log.handle(message(entry(admission=admission)))

    assert ("headgate_requests_total", "acme", "tiny", "chat", "200") in rig.series()
