"""The edits of the lean path, on a real Envoy: vLLM gets what the splice makes of the same body."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from extproc.edits import Edited, edited
from extproc.form import rewrite_form
from extproc.splice import SpliceError, rewrite_body
from extproc.types import Admit, FormRewrite, Refuse, Rewrite, UsageFields
from headgate._gen.auth_pb2 import CheckRequest, CheckResponse
from headgate.core.contract import CACHE_SALT, PLATFORM_FIELDS, AdmissionKey, Header, RequestKey
from headgate.core.lean_contract import HookPath
from headgate.core.policy import Caller
from headgate.lean import wire
from ratelimit.answers import Admitted
from tests.envoy_process import CHAT, Rig, running_envoy
from tests.fake_hooks import MODEL

pytestmark = pytest.mark.asyncio(loop_scope="module")

AUDIO = "/v1/audio/transcriptions"
DROPPED = tuple(name for name in PLATFORM_FIELDS if name != CACHE_SALT)
ADMISSION = {
    AdmissionKey.RESERVATION: "r1",
    AdmissionKey.TENANT: "acme",
    AdmissionKey.ESTIMATE: "40",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[Rig]:
    async with running_envoy(path=HookPath.LEAN) as running:
        yield running


async def forwarded(
    rig: Rig, body: bytes, rewrite: Rewrite | FormRewrite, path: str = CHAT, **sent: str
) -> bytes | str:
    """The body that the upstream got; the code of the refusal if it got none."""
    await rig.reset()

    def check(message: CheckRequest) -> CheckResponse:
        facts = wire.decode(message).by(Caller("acme", "alice", "k1"))
        if isinstance(rewrite, FormRewrite):
            assert facts.values[RequestKey.BODY] == "form"
        admit = Admit(headers={Header.BASE: MODEL}, admission=ADMISSION, rewrite=rewrite)
        planned = edited(admit, facts)
        if isinstance(planned, Refuse):
            return wire.encode_refusal(planned, facts, (), {})
        assert isinstance(planned, Edited)
        return wire.encode_admission(planned, Admitted(()), (), ())

    rig.services.check = check
    answer = await rig.post(body, path, **{"x-api-key": "k", **sent})
    if answer.status_code != 200:
        return str(answer.json()["error"]["message"])
    (received,) = rig.upstream.received
    return received.body


def spaced(draw: st.DrawFn) -> str:
    return draw(st.sampled_from(["", "", " ", "\n", "\t \r\n"]))


VALUES = [
    "null",
    "1",
    "-2.5e3",
    "true",
    "false",
    '"x"',
    '"\\u00e9 \\\\\\" }"',
    "[]",
    "{}",
    '[1, {"a": "]"}]',
]
SALTS = ["null", '"mine"', '"\\ud83d\\ude00"', '""', "7", '"é\\n"', "[]", json.dumps("s" * 1025)]
FLAGS = ["true", "false", "null", "{}", "[true]"]
NAMES = [*DROPPED, "\\u0070riority", "user", "temperature", "messages"]


@st.composite
def options(draw: st.DrawFn) -> str:
    kinds = st.sampled_from(
        ["include_usage", "continuous_usage_stats", "other", "inclu\\u0064e_usage"]
    )
    pairs = draw(st.lists(st.tuples(kinds, st.sampled_from(FLAGS)), max_size=4))
    members = [f'"{name}"{spaced(draw)}:{spaced(draw)}{value}' for name, value in pairs]
    inner = f"{spaced(draw)},".join(members)
    return draw(
        st.sampled_from([f"{{{spaced(draw)}{inner}{spaced(draw)}}}"] * 4 + ["null", "[]", "7"])
    )


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """An object with a model, and any members that a rewrite may touch, repeated in any order."""
    member = st.one_of(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)),
        st.tuples(st.sampled_from(["model", "mo\\u0064el"]), st.sampled_from(['"tiny"', '"\\"y"'])),
        st.tuples(st.just("stream_options"), options()),
        st.tuples(st.just(CACHE_SALT), st.sampled_from(SALTS)),
    )
    pairs = draw(st.lists(member, max_size=9))
    pairs.insert(draw(st.integers(0, len(pairs))), ("model", '"tiny"'))
    members = [f'"{name}"{spaced(draw)}:{spaced(draw)}{value}' for name, value in pairs]
    inner = f"{spaced(draw)},{spaced(draw)}".join(members)
    head = draw(st.sampled_from(["", "", "\ufeff", " \n"]))
    return f"{head}{{{spaced(draw)}{inner}{spaced(draw)}}}{spaced(draw)}"


REWRITES = st.builds(
    Rewrite,
    st.sampled_from([None, "org/served", 'q"\\é']),
    st.booleans(),
    st.lists(st.sampled_from(DROPPED), unique=True).map(tuple),
    st.sampled_from([None, "acme"]),
)


def read(body: bytes) -> Any:
    return json.loads(body.decode("utf-8-sig"))


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(body=bodies(), rewrite=REWRITES)
@example('{"priority":1,"request_id":"r","model":"tiny"}', Rewrite(None, False, DROPPED, "acme"))
@example('{"model":"tiny","priority":1,"vllm_xargs":{}}', Rewrite(None, True, DROPPED))
async def test_vllm_reads_what_the_splice_makes(rig: Rig, body: str, rewrite: Rewrite) -> None:
    got = await forwarded(rig, body.encode(), rewrite)

    if isinstance(got, str):
        with pytest.raises(SpliceError, match=re.escape(got)):
            rewrite_body(body.encode(), rewrite)
    else:
        assert read(got) == read(rewrite_body(body.encode(), rewrite))


async def test_a_body_of_many_platform_fields_is_refused(rig: Rig) -> None:
    """Their places would be a message without bound."""
    body = b'{"model":"tiny"' + b',"priority":1' * 40 + b"}"

    assert "repeats" in str(await forwarded(rig, body, Rewrite(None, False, ("priority",))))


@pytest.mark.parametrize(
    "flags", [(), ("stream_include_usage",), ("stream_continuous_usage_stats",)]
)
@pytest.mark.parametrize("word", ["true", "0", "off"])
async def test_a_form_is_edited_as_the_service_rewrites_it(
    rig: Rig, flags: tuple[str, ...], word: str
) -> None:
    fields = {"file": "RIFF", "model": "tiny", "stream": "true", **dict.fromkeys(flags, word)}
    parts = [
        f'--sep\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields.items()
    ]
    body = "".join([*parts, "--sep--\r\n"]).encode()

    def at(name: str) -> int | None:
        found = body.find(f'name="{name}"\r\n\r\n'.encode())
        return None if found < 0 else body.index(b"\r\n\r\n", found) + 4

    model_at = at("model")
    assert model_at is not None
    usage = UsageFields(at("stream_include_usage"), at("stream_continuous_usage_stats"))
    rewrite = FormRewrite(model_at, b"tiny", b"org/served", usage)
    got = await forwarded(
        rig,
        body,
        rewrite,
        path="/v1/audio/transcriptions",
        **{"content-type": "multipart/form-data; boundary=sep"},
    )

    assert got == rewrite_form(body, rewrite)


async def test_a_service_that_does_not_know_the_lean_path_lets_nothing_pass(rig: Rig) -> None:
    """Its answer identifies the caller, and has no admission."""
    await rig.reset()
    answer = await rig.post(**{"x-api-key": "k"})

    assert answer.status_code == 503
    assert rig.upstream.received == []


async def test_a_body_that_the_script_fails_to_edit_does_not_pass(rig: Rig) -> None:
    await rig.reset()

    def check(_: CheckRequest) -> CheckResponse:
        admit = Admit(headers={Header.BASE: MODEL}, admission=ADMISSION, rewrite=None)
        response = wire.encode_admission(Edited(admit, ((0, 1, "x"),)), Admitted(()), (), ())
        response.dynamic_metadata.fields["edits"].list_value.values[1].string_value = "no number"
        return response

    rig.services.check = check
    answer = await rig.post(**{"x-api-key": "k"})

    assert answer.status_code == 503
    assert rig.upstream.received == []
