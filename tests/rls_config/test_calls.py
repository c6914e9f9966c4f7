"""The fields that Envoy reads in the answer to each call, on every store."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from headgate._gen.ratelimit_pb2 import RateLimitDescriptor, RateLimitResponse
from headgate.core.metrics import Metrics
from ratelimit.descriptors.service import DescriptorLimits, DescriptorOptions
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import Store
from ratelimit.store.redis import RedisStore
from tests.fakes import FakeClock
from tests.ratelimit.builders import new_name
from tests.redis_server import PATIENT_S, RedisServer, running_redis_cluster
from tests.rls_config.builders import Unit, call, descriptor, domains

FILE: dict[str, Any] = YAML(typ="safe").load(Path(__file__).with_name("calls.yaml"))
NOW_S = datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()
FORM = re.compile(r"(?P<entries>\S*)( (?P<sign>[+-])(?P<hits>\d+))?( @(?P<n>\d+)/(?P<unit>\w+))?")


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[RedisServer]:
    with running_redis_cluster() as server:
        yield server


@pytest.fixture(params=["memory", "redis_cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    built: Store = MemoryStore()
    if request.param != "memory":
        server: RedisServer = request.getfixturevalue("redis_cluster")
        built = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
    yield built
    await built.close()


def read(text: str) -> RateLimitDescriptor:
    form = FORM.fullmatch(text)
    assert form is not None, text
    pairs = [pair.partition("=") for pair in form["entries"].split(",") if pair]
    return descriptor(
        *((key, value) for key, _, value in pairs),
        hits=int(form["hits"]) if form["hits"] else None,
        gives_back=form["sign"] == "-",
        override=(int(form["n"]), Unit.Unit.Value(form["unit"])) if form["n"] else None,
    )


def written(status: RateLimitResponse.DescriptorStatus) -> str:
    code = {RateLimitResponse.OK: "ok", RateLimitResponse.OVER_LIMIT: "over"}[status.code]
    if not status.HasField("current_limit"):
        return f"{code} {status.limit_remaining or '-'}"
    limit = status.current_limit.requests_per_unit
    return f"{code} {status.limit_remaining}/{limit} {status.duration_until_reset.seconds}"


@pytest.mark.parametrize("name", FILE["cases"])
async def test_calls_are_answered(name: str, store: Store) -> None:
    await answer(FILE["cases"][name], store, counts_refused=False)


@pytest.mark.parametrize("name", FILE["counting_refused"])
async def test_calls_are_answered_when_refused_hits_count(name: str, store: Store) -> None:
    await answer(FILE["counting_refused"][name], store, counts_refused=True)


async def answer(calls: list[list[Any]], store: Store, *, counts_refused: bool) -> None:
    domain = new_name("shop")
    configured = domains(FILE["configuration"].replace("shop", domain))
    clock = FakeClock(NOW_S)
    metrics = Metrics(CollectorRegistry(), clock)
    options = DescriptorOptions(counts_refused=counts_refused)
    service = DescriptorLimits(store, lambda: configured, clock, metrics, options)
    for asked, expected, *more in calls:
        passes = "passes" in more
        hits = next((word for word in more if word != "passes"), 0)
        message = call(*map(read, asked), domain=domain, hits=hits)

        response = await service.answer(message)

        assert [written(status) for status in response.statuses] == expected
        is_over = any(status.startswith("over") for status in expected)
        assert response.overall_code == (
            RateLimitResponse.OVER_LIMIT if is_over and not passes else RateLimitResponse.OK
        )
