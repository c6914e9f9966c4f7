"""A real Envoy with the real decision, in front of an upstream that keeps every byte."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from extproc import wire
from extproc.asked import read_asked
from extproc.decide import decide
from extproc.edits import Edited, edited
from extproc.estimate import Estimator
from extproc.splice import cache_salt
from extproc.stream import RequestReply, RequestStream
from extproc.types import Admit, Refuse, RequestDecision, RequestFacts, Value
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate._gen.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from headgate.core.apis import Api
from headgate.core.contract import AdmissionKey
from headgate.core.lean_contract import HookPath
from headgate.core.policy import Caller, CompiledPolicy, PerSecond
from headgate.lean import wire as lean
from ratelimit.answers import Admitted
from tests.door.readers import Reading
from tests.envoy_process import Rig
from tests.extproc.builders import CONTEXT, POLICY, model

NAMES = {
    entry.name: entry
    for entry in (
        model("tiny"),
        model("shy", base="tiny", forces_usage=False),
        model("alias", base="tiny", served_as="org/served"),
        model("poet", base="tiny", adapter="lora-poet", served_as="lora-poet"),
    )
}
TENANT = replace(POLICY.tenants["acme"], models=frozenset(NAMES), limits=())
OPEN: Mapping[Api, int | PerSecond | None] = {
    Api.TOKENIZE: None,
    Api.COUNT_TOKENS: 0,
    Api.TRANSCRIPTIONS: PerSecond(50),
    Api.TRANSLATIONS: 500,
}
DOOR = CompiledPolicy(NAMES, {"acme": TENANT}, {}, OPEN)
CALLER = Caller("acme", "alice", "k1")
WITHOUT_OUTPUT = {Api.EMBEDDINGS, Api.SCORE, Api.RERANK, *OPEN}

on_both_paths = pytest.mark.parametrize("rig", HookPath, indirect=True, scope="module")


@dataclass
class Decider:
    """Answers ext_proc's messages, or lean checks, like the service; keeps facts and decision."""

    policy: CompiledPolicy = DOOR
    facts: RequestFacts | None = None
    decision: RequestDecision | None = None
    stream: RequestStream | None = None

    def process(self, message: ProcessingRequest) -> ProcessingResponse:
        reply: RequestReply
        if message.HasField("request_headers"):
            self.stream = RequestStream(self._decide, lambda: 0, False)
            reply = self.stream.on_headers(wire.decode_headers(message))
        else:
            assert self.stream is not None
            reply = self.stream.on_body(message.request_body.body)
        return wire.encode_reply(reply)  # type: ignore[arg-type]

    def check(self, message: CheckRequest) -> CheckResponse:
        facts = lean.decode(message).by(CALLER)
        decision = self._decide(facts)
        if isinstance(decision, Admit):
            planned = edited(decision, facts)
            if isinstance(planned, Edited):
                return lean.encode_admission(planned, Admitted(()), (), ())
            decision = planned
        assert isinstance(decision, Refuse)
        return lean.encode_refusal(decision, facts, (), {})

    def _decide(self, facts: RequestFacts) -> RequestDecision:
        self.facts = facts
        self.decision = decide(facts, self.policy, Estimator(), "r-1")
        return self.decision


@dataclass(frozen=True)
class Passage:
    """The outcome of one request: the answer's status, and the code and field of a refusal."""

    status: int
    code: str | None
    param: str | None
    facts: RequestFacts | None
    decision: RequestDecision | None
    forwarded: bytes | None

    @property
    def values(self) -> Mapping[str, Value]:
        return {} if self.facts is None else self.facts.values


async def pass_through(rig: Rig, path: str, content_type: str, body: bytes) -> Passage:
    """Sends one request through Envoy."""
    await rig.reset()
    decider = Decider()
    rig.services.process = decider.process
    if rig.box.path is HookPath.LEAN:
        rig.services.check = decider.check
    answer = await rig.post(body, path, **{"content-type": content_type, "x-api-key": "k"})
    error = answer.json().get("error", {}) if answer.status_code >= 400 else {}
    received = rig.upstream.received
    assert len(received) <= 1
    return Passage(
        answer.status_code,
        error.get("code"),
        error.get("param"),
        decider.facts,
        decider.decision,
        received[0].body if received else None,
    )


def disagreement(passage: Passage, reading: Reading | None) -> str | None:
    """The difference between vLLM's reading and the decision; None if they agree.

    `reading` is vLLM's reading of the bytes that it got; None if it refuses them, as it then uses
    nothing. Prompts and a maximum bound the output, so they count only where there is any.
    """
    if not isinstance(passage.decision, Admit) or reading is None:
        return None
    admission = passage.decision.admission
    asked = read_asked(Api(admission[AdmissionKey.API]), passage.values, CONTEXT)
    without_output = admission[AdmissionKey.API] in WITHOUT_OUTPUT
    decided = Reading(
        model=NAMES[admission[AdmissionKey.MODEL]].served_as,
        stream=passage.values.get("stream") is True and _streams(admission[AdmissionKey.API]),
        n=asked.n,
        max=reading.max if without_output else asked.max_tokens,
        prompts=reading.prompts if without_output else asked.prompts,
        cache_salt=reading.cache_salt,
        set=("cache_salt",) if "cache_salt" in reading.set else (),
    )
    if decided != reading:
        return f"decided {decided}, vLLM reads {reading}"
    if reading.cache_salt is not None and len(reading.cache_salt) != len(cache_salt("acme")):
        return f"vLLM reads the client's own salt {reading.cache_salt!r}"
    return None


def _streams(api: str) -> bool:
    return api in ("chat", "completions", "responses", "messages")


BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/chat/completions/batch": {
        "model": "tiny",
        "messages": [[{"role": "user", "content": "Hi"}]],
    },
    "/v1/completions": {"model": "tiny", "prompt": "Hi"},
    "/v1/responses": {"model": "tiny", "input": "Hi"},
    "/v1/messages": {
        "model": "tiny",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hi"}],
    },
    "/v1/messages/count_tokens": {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/embeddings": {"model": "tiny", "input": "Hi"},
    "/v1/score": {"model": "tiny", "text_1": "a", "text_2": ["b"]},
    "/v1/rerank": {"model": "tiny", "query": "a", "documents": ["b"]},
    "/v2/rerank": {"model": "tiny", "query": "a", "documents": ["b"]},
    "/tokenize": {"model": "tiny", "prompt": "Hi"},
}
"""A small request of each API."""


def with_members(path: str, members: str) -> str:
    """The small request of `path`, followed by these members, as JSON text."""
    small = json.dumps(BODIES[path])
    return f"{small[:-1]}, {members}}}" if members else small
