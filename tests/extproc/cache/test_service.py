"""Requests with the cache over a real gRPC connection: whose body and answer are asked for."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeAlias

import grpc
import pytest
from prometheus_client import CollectorRegistry

from extproc.cache.cache import AnswerCache
from extproc.cache.memory import MemoryAnswers
from extproc.cache.serving import CachedAnswers
from extproc.estimate import Estimator
from extproc.own_keys import no_keys
from extproc.pins.memory import MemoryPins
from extproc.service import ExternalProcessor
from headgate._gen.ext_proc_pb2 import ProcessingMode, ProcessingRequest, ProcessingResponse
from headgate.core.answer_cache import (
    OFFER_METADATA,
    HitAllowed,
    ModelCache,
    TenantCache,
)
from headgate.core.contract import AdmissionKey
from headgate.core.failover import Failover
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy, Tenant
from tests.extproc.builders import POLICY, body_message, headers_message
from tests.extproc.cache.builders import BODY
from tests.extproc.test_service import OPTIONS, PROCESS
from tests.fakes import FakeClock
from tests.hook_channel import hook_channel

Call: TypeAlias = "grpc.aio.StreamStreamCall[ProcessingRequest, ProcessingResponse]"


class Desk:
    """A running ExternalProcessor with a cache in memory, for model tiny and tenant acme."""

    def __init__(self, failover: Failover | None = None) -> None:
        clock = FakeClock(1000)
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry, clock)
        self.cache = AnswerCache(MemoryAnswers(clock), b"s" * 32, clock, metrics)
        policy = _policy(failover)
        self.service = ExternalProcessor(
            policy=lambda: policy,
            estimator=Estimator(),
            new_id=lambda: "r1",
            limits_of=_nothing,
            usage_of=_nothing,
            own_keys=no_keys,
            pins=MemoryPins(clock),
            metrics=metrics,
            clock=clock,
            cached=CachedAnswers(self.cache, _allow),
        )

    def count(self, name: str) -> float:
        """All outcomes of a counter together."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name
        )


def _policy(failover: Failover | None) -> CompiledPolicy:
    kept = ModelCache(ttl_s=600, max_bytes=10_000)
    tiny = replace(POLICY.models["tiny"], answer_cache=kept, failover=failover)
    acme = replace(POLICY.tenants["acme"], answer_cache=TenantCache(100_000))
    tenants: Mapping[str, Tenant] = {**POLICY.tenants, "acme": acme}
    return replace(POLICY, models={**POLICY.models, "tiny": tiny}, tenants=tenants)


async def _nothing(*_: object) -> None:
    return None


async def _allow(_admission: Mapping[AdmissionKey, str], _prompt: int, _output: int) -> HitAllowed:
    return HitAllowed()


@asynccontextmanager
async def asking(desk: Desk, offers: bool) -> AsyncIterator[Call]:
    """One request to a model with a cache, from a filter that offers the cache or does not."""
    metadata = (OFFER_METADATA,) if offers else ()
    async with hook_channel(desk.service.methods(), OPTIONS) as channel:
        process = channel.stream_stream(
            PROCESS,
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )
        call = process(metadata=metadata)
        await call.write(headers_message({"model": "tiny"}))
        yield call


async def test_a_filter_that_offers_the_cache_is_asked_for_the_body_and_the_answer() -> None:
    desk = Desk()
    async with asking(desk, offers=True) as call:
        mode = (await call.read()).mode_override

        assert mode.request_body_mode == ProcessingMode.BUFFERED
        assert mode.response_header_mode == ProcessingMode.SEND
        await call.write(body_message(BODY))
        assert (await call.read()).WhichOneof("response") == "request_body"
    assert desk.count("headgate_cache_lookups_total") == 1


@pytest.mark.parametrize(
    ("offers", "failover"),
    [(False, None), (True, Failover(to="spot"))],
    ids=["an older EnvoyFilter", "a model with failover"],
)
async def test_where_no_answer_is_kept_no_body_is_asked_for(
    offers: bool, failover: Failover | None
) -> None:
    desk = Desk(failover)
    async with asking(desk, offers) as call:
        reply = await call.read()

        assert reply.WhichOneof("response") == "request_headers"
        assert not reply.HasField("mode_override")
        assert await call.read() == grpc.aio.EOF
    assert desk.count("headgate_cache_lookups_total") == 0
