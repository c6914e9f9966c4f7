"""The work of the services for a request of the lean path, in calls of our own functions.

Unlike times, the number of calls is the same on every machine. It grows with each step that is
added to the path of all requests: raise a bound only for something that is worth it.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import headgate
from extproc.pins.memory import MemoryPins
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate.core.contract import Namespace
from headgate.core.lean_contract import PATH_METADATA
from headgate.core.metrics import Metrics
from headgate.core.trace_headers import REQUEST_ID
from headgate.policy import parse_policy
from headgate.program.app import Hooks, build_hooks
from headgate.program.parts import Parts
from headgate.program.settings import ServiceSettings
from ratelimit.store.memory import MemoryStore
from tests.accesslog.entries import USAGE, entry, message
from tests.box import KEYS, policy
from tests.extauthz.builders import NoTokens, check_request
from tests.fakes import FakeClock

ROOMS = ("extauthz", "extproc", "ratelimit", "accesslog")
CALLS_OF_A_CHECK = 146
CALLS_OF_AN_ENTRY = 110
LIMITS = """
      - {count: tokens, limit: 1000000000, per: day, each: user}
      - {count: requests, limit: 1000000, per: minute, each: [user, model]}
"""
BODY = {"body": "read", "model": "tiny", "max_tokens": 10.0, "text_bytes": "950"}
ROOT = Path(headgate.__file__).parents[1]
OURS = tuple(f"{ROOT / room}/" for room in ("headgate", *ROOMS))
WARM, COUNTED = 20, 50


class LeanContext:
    """The context of a call of an Envoy on the lean path."""

    def metadata(self, name: str) -> str | None:
        key, value = PATH_METADATA
        return value if name == key else None


@pytest.fixture
def hooks() -> Hooks:
    clock = FakeClock()
    metrics = Metrics(CollectorRegistry(), clock)
    text = policy("http://127.0.0.1:1", forces_usage=True, limits=LIMITS)
    compiled = parse_policy(text.encode(), "policy")
    parts = Parts(
        policy=lambda: compiled,
        store=MemoryStore(),
        pins=MemoryPins(clock),
        clock=clock,
        metrics=metrics,
        verifier=NoTokens(),
    )
    return build_hooks(ServiceSettings(), parts)


def lean_check(number: int) -> CheckRequest:
    """A check of alice's, as Envoy sends it once it has read the body."""
    key = ("authorization", f"Bearer {KEYS['alice']}".encode())
    sent = check_request(key, (REQUEST_ID, f"r-{number}".encode()), path="/v1/chat/completions")
    metadata = sent.attributes.metadata_context.filter_metadata[Namespace.REQUEST]
    metadata.update(BODY)
    return sent


async def admission(hooks: Hooks, number: int) -> CheckResponse:
    context: Any = LeanContext()
    return await hooks.lean.check(lean_check(number), context)


async def calls_each(work: Callable[[int], Awaitable[object]]) -> float:
    """The calls of our functions, and resumptions of our coroutines, for one piece of work."""
    seen: list[CodeType] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            seen.append(frame.f_code)

    for number in range(WARM):
        await work(number)
    sys.setprofile(note)
    try:
        for number in range(WARM, WARM + COUNTED):
            await work(number)
    finally:
        sys.setprofile(None)
    return len(seen) / COUNTED


async def test_a_check_does_not_take_more_steps_than_before(hooks: Hooks) -> None:
    async def check(number: int) -> None:
        assert (await admission(hooks, number)).status.code == 0

    calls = await calls_each(check)
    assert calls <= CALLS_OF_A_CHECK


async def test_a_log_entry_does_not_take_more_steps_than_before(hooks: Hooks) -> None:
    answers = [await admission(hooks, number) for number in range(WARM + COUNTED)]
    logged = []
    for answer in answers:
        fields = answer.dynamic_metadata.fields
        caller = {key: fields[key].string_value for key in fields}
        logged.append(message(entry(caller=caller, admission={}, usage=USAGE)))

    async def log(number: int) -> None:
        await hooks.access_log.handle(logged[number])

    calls = await calls_each(log)
    assert calls <= CALLS_OF_AN_ENTRY
