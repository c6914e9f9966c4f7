"""Any bytes in place of Envoy's messages get a decision, or a refusal that Envoy understands.

No other error, no hang (each test has its time), and no more memory than in proportion.
"""

import contextlib
import os
import tracemalloc
from collections.abc import Callable
from random import Random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

import extauthz.wire
import extproc.wire
import ratelimit.descriptors.wire
import ratelimit.wire
from accesslog.meter import meter
from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.splice import SpliceError, rewrite_body
from extproc.stream import RequestStream
from extproc.types import Rewrite
from headgate._gen.auth_pb2 import CheckRequest
from headgate._gen.ext_proc_pb2 import ProcessingRequest
from headgate._gen.ratelimit_pb2 import RateLimitRequest
from headgate.core.prices import Price
from headgate.grpc_server.frames import PREFACE
from headgate.policy.load import find_problems
from ratelimit.descriptors.wire import BadCallError
from ratelimit.wire import BadDescriptorError
from tests.accesslog.entries import decode as decode_log
from tests.door.rig import BODIES, DOOR, with_members
from tests.extauthz.builders import decide as authenticate
from tests.fuzz.mutations import FOLDER, HTTP2, MESSAGES, mutated
from tests.grpc_server.peer import HEAD, TRAILERS, Peer

POLICIES = [path.read_bytes() for path in sorted(FOLDER.glob("*.yaml"))]
REQUESTS = [
    with_members(path, '"stream": true, "stream_options": {}, "cache_salt": "s", "priority": 1')
    for path in BODIES
]


def _no_time() -> int:
    return 0


def ext_authz(data: bytes) -> None:
    decision = authenticate(extauthz.wire.decode(CheckRequest.FromString(data)), DOOR)
    assert extauthz.wire.encode(decision).SerializeToString()


def ext_proc(data: bytes) -> None:
    message = ProcessingRequest.FromString(data)
    stream = RequestStream(lambda facts: decide(facts, DOOR, Estimator(), "r-1"), _no_time, False)
    if message.HasField("request_headers"):
        reply = stream.on_headers(extproc.wire.decode_headers(message))
        assert extproc.wire.encode_reply(reply).SerializeToString()  # type: ignore[arg-type]


def rate_limit(data: bytes) -> None:
    ratelimit.wire.decode(RateLimitRequest.FromString(data))


def drop_in(data: bytes) -> None:
    ratelimit.descriptors.wire.decode(RateLimitRequest.FromString(data))


def _price_of(model: str, version: str | None, at_s: float | None) -> Price | None:
    known = DOOR.models.get(model)
    return None if known is None else known.prices.at(at_s or 0.0, version)


def access_log(data: bytes) -> None:
    for entry in decode_log(data):
        meter(entry, _price_of)


def rewriting(data: bytes) -> None:
    rewrite_body(data, Rewrite("org/x", True, ("priority",), "acme"))


def http2(data: bytes) -> None:
    peer = Peer(greeted=False)
    peer.connection.receive(PREFACE)
    half = len(data) // 2
    for piece in (data[:half], data[half:]):
        peer.connection.receive(piece)
        for stream in list(peer.connection.streams.values()):
            if stream.remote_ended:
                peer.connection.answer(stream, HEAD, b"answer", TRAILERS)
    assert len(peer.connection.take()) <= 1_000 + 20 * len(data)


def policy(data: bytes) -> None:
    found, problems = find_problems(data)
    assert (found is None) == bool(problems)
    assert all(problem.render("FILE").isprintable() for problem in problems)


Target = Callable[[bytes], None]
TARGETS: dict[str, tuple[Target, list[bytes], tuple[type[Exception], ...]]] = {
    "ext_authz": (ext_authz, MESSAGES["ext_authz"], (DecodeError,)),
    "ext_proc": (ext_proc, MESSAGES["ext_proc"], (DecodeError,)),
    "ratelimit": (rate_limit, MESSAGES["ratelimit"], (DecodeError, BadDescriptorError)),
    "drop-in": (drop_in, MESSAGES["ratelimit"], (DecodeError, BadCallError)),
    "accesslog": (access_log, MESSAGES["accesslog"], (ValueError,)),
    "rewriting": (rewriting, [text.encode() for text in REQUESTS], (SpliceError,)),
    "http2": (http2, HTTP2, ()),
    "policy": (policy, POLICIES, ()),
}
"""What reads the bytes, the seeds, and the errors by which it refuses them."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_understood(name: str) -> None:
    target, seeds, _ = TARGETS[name]
    for seed in seeds:
        target(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=int(os.environ.get("HEADGATE_FUZZ_EXAMPLES", "200")), deadline=None)
@given(data=st.data())
def test_bent_bytes_are_decided_or_refused(name: str, data: st.DataObject) -> None:
    target, seeds, refusals = TARGETS[name]
    sent = data.draw(mutated(seeds))
    with contextlib.suppress(refusals):
        target(sent)


@pytest.mark.parametrize("name", TARGETS)
def test_memory_stays_in_proportion(name: str) -> None:
    """Also when a part of the bytes comes a thousand times."""
    target, seeds, refusals = TARGETS[name]
    random = Random(7)
    for _ in range(20):
        seed = random.choice(seeds)
        start = random.randrange(len(seed))
        part = seed[start : start + random.randrange(1, 60)]
        sent = seed[:start] + part * 1000 + seed[start:]
        tracemalloc.start()
        try:
            with contextlib.suppress(refusals):
                target(sent)
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 2_000_000 + 200 * len(sent)
