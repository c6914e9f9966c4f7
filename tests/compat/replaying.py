"""Plays recorded messages to the hooks of today, at the times at which they were sent."""

import asyncio
import base64
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate._gen.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from headgate._gen.ratelimit_pb2 import RateLimitRequest, RateLimitResponse
from headgate.core.contract import AdmissionKey, LimitsKey, Namespace
from headgate.core.end_users import END_USER_HEADERS, ORGANIZATION, PERSONAL_HEADERS
from headgate.core.metrics import Metrics
from headgate.policy import load_policy
from headgate.program import app
from headgate.program import parts as program_parts
from headgate.program.app import Hooks, build_hooks
from headgate.program.parts import Parts, running_pins, running_store
from headgate.program.settings import ServiceSettings, StoreSettings
from tests.extauthz.builders import NoTokens
from tests.fakes import FakeClock
from tests.redis_server import PATIENT_S

_LONGEST_RETRY_S = 60
_WORDS = re.compile(r'(?<="message": ")[^"]*')


@dataclass(frozen=True, slots=True)
class Event:
    """One message to a hook and what the release answered, None where there was no answer."""

    call: int
    method: str
    at_s: float
    request: bytes
    response: bytes | None


def events(file: Path) -> list[Event]:
    """The messages of a recording in the order in which they were sent."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    answers: dict[int, list[bytes]] = {}
    for line in lines:
        if "response" in line:
            answers.setdefault(line["call"], []).append(base64.b64decode(line["response"]))
    return [
        Event(
            line["call"],
            line["method"],
            line["at_s"],
            base64.b64decode(line["request"]),
            answers[line["call"]].pop(0) if answers.get(line["call"]) else None,
        )
        for line in lines
        if "request" in line
    ]


class _Context:
    """Stands in for gRPC's context: the recorded Envoy counts in the proxy."""

    def metadata(self, _name: str) -> None:
        return None


class _Ids:
    """Stands in for the module `uuid`: gives the names that were recorded."""

    def __init__(self, replica: str) -> None:
        self.next: str | None = replica

    def uuid4(self) -> uuid.UUID:
        name, self.next = self.next, None
        return uuid.uuid4() if name is None else uuid.UUID(name)


@dataclass
class Replica:
    """The hooks of today on a Redis, with a clock that follows the recording."""

    hooks: Hooks
    clock: FakeClock
    ids: _Ids
    streams: dict[int, tuple[asyncio.Queue[ProcessingRequest], AsyncIterator[ProcessingResponse]]]
    settled: list[str] = field(default_factory=list)

    async def play(self, event: Event) -> None:
        """Sends one message. AssertionError where the answer is another than the release's."""
        self.clock.advance(event.at_s - self.clock.now_s())
        context: Any = _Context()
        match event.method:
            case "check":
                asked = CheckRequest.FromString(event.request)
                answer: Message = await self.hooks.authorization.check(asked, context)
                _same(answer, CheckResponse(), event)
            case "process":
                _same(await self._process(event, context), ProcessingResponse(), event)
            case "should_rate_limit":
                call = RateLimitRequest.FromString(event.request)
                answer = await self.hooks.rate_limit.should_rate_limit(call, context)
                _same(answer, RateLimitResponse(), event)
            case _:
                await self.hooks.access_log.handle(event.request)

    async def _process(self, event: Event, context: Any) -> ProcessingResponse:
        assert event.response is not None
        admission = ProcessingResponse.FromString(event.response).dynamic_metadata
        reservation = admission.fields[Namespace.ADMISSION].struct_value.fields[
            AdmissionKey.RESERVATION
        ]
        self.ids.next = reservation.string_value or None
        if event.call not in self.streams:
            queue: asyncio.Queue[ProcessingRequest] = asyncio.Queue()
            answers = self.hooks.processor.process(_drained(queue), context)
            self.streams[event.call] = (queue, answers)
        queue, answers = self.streams[event.call]
        queue.put_nowait(ProcessingRequest.FromString(event.request))
        return await anext(answers)


async def _drained(
    queue: asyncio.Queue[ProcessingRequest],
) -> AsyncIterator[ProcessingRequest]:
    while True:
        yield await queue.get()


def _same(answer: Message, of_release: Message, event: Event) -> None:
    """Compares all but the words of an error: a client decides by its code, type and status."""
    assert event.response is not None
    of_release.MergeFromString(event.response)
    for message in (answer, of_release):
        _forget_words(message)
    if isinstance(of_release, RateLimitResponse):
        _without_long_waits(of_release)
    if isinstance(answer, ProcessingResponse):
        _forget_served_as(answer)
    if isinstance(answer, RateLimitResponse):
        _forget_refused_by(answer)
    if isinstance(answer, CheckResponse):
        _forget_end_users(answer)
    assert answer == of_release, f"call {event.call}, {event.method}"


def _forget_end_users(answer: CheckResponse) -> None:
    """Since 0.1.0 the headers of front ends go no further. Clients of that time sent none."""
    removed = answer.ok_response.headers_to_remove
    for name in (*END_USER_HEADERS, *PERSONAL_HEADERS, ORGANIZATION) if removed else ():
        removed.remove(name)


def _forget_served_as(answer: ProcessingResponse) -> None:
    """Takes out vLLM's name of the model, which 0.1.0 did not send. The filters of 0.1.0 read the
    other keys by their names, and no descriptor has this one."""
    if Namespace.ADMISSION in answer.dynamic_metadata.fields:
        admission = answer.dynamic_metadata.fields[Namespace.ADMISSION].struct_value
        admission.fields.pop(AdmissionKey.SERVED_AS, None)


def _forget_refused_by(answer: RateLimitResponse) -> None:
    """Takes out the limit that refused, which 0.1.0 did not name. Only the access log reads it."""
    for key in LimitsKey:
        if key.startswith("refused"):
            answer.dynamic_metadata.fields.pop(key, None)
    if not answer.dynamic_metadata.fields:
        answer.ClearField("dynamic_metadata")


def _forget_words(message: Message) -> None:
    match message:
        case CheckResponse() if message.HasField("denied_response"):
            denied = message.denied_response
            denied.body = _WORDS.sub("", denied.body)
        case ProcessingResponse() if message.HasField("immediate_response"):
            immediate = message.immediate_response
            immediate.body = _WORDS.sub("", immediate.body.decode()).encode()
        case RateLimitResponse():
            message.raw_body = _WORDS.sub("", message.raw_body.decode()).encode()


def _without_long_waits(of_release: RateLimitResponse) -> None:
    """Since 0.1.0, a 429 above 60 s says "do not retry" in place of `retry-after`.

    That is compatible: Envoy passes any header on, and a client that knew `retry-after` knows
    `x-should-retry` or decides by the status.
    """
    for header in of_release.response_headers_to_add:
        if header.key == "retry-after" and int(header.value) > _LONGEST_RETRY_S:
            header.key, header.value = "x-should-retry", "false"


@asynccontextmanager
async def running_replica(release: Path, url: str, name: str) -> AsyncIterator[Replica]:
    """A replica of that name on this Redis, with the release's policy."""
    first = json.loads((release / "messages.jsonl").read_text().partition("\n")[0])
    clock, ids = FakeClock(first["at_s"]), _Ids(name)
    metrics = Metrics(CollectorRegistry(), clock)
    policy = load_policy(release / "policy.yaml")
    where = StoreSettings(url, deadline_s=PATIENT_S)
    settings = ServiceSettings(policy=release / "policy.yaml", store=where)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "uuid", ids)
        patch.setattr(program_parts, "uuid", ids)
        async with (
            running_store(where, clock, metrics) as store,
            running_pins(where, clock) as pins,
        ):
            parts = Parts(
                policy=lambda: policy,
                store=store,
                pins=pins,
                clock=clock,
                metrics=metrics,
                verifier=NoTokens(),
            )
            yield Replica(build_hooks(settings, parts), clock, ids, {})
