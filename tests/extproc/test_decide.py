"""ext_proc's decision: every field that is refused, and the values of an admitted request."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.types import (
    Admit,
    Answer,
    Compound,
    FormRewrite,
    Peek,
    Refuse,
    RequestDecision,
    RequestFacts,
    Rewrite,
    UsageFields,
    Value,
)
from headgate.core.apis import Api, ErrorShape
from headgate.core.contract import AdmissionKey, Header
from headgate.core.policy import Caller, PerSecond
from tests.extproc.builders import ALICE, POLICY, facts

CASES: list[dict[str, Any]] = YAML(typ="safe").load(Path(__file__).parent / "cases/decide.yaml")


def decided(request: RequestFacts) -> RequestDecision:
    return decide(request, POLICY, Estimator(), "r-1")


def admitted(request: RequestFacts) -> Admit:
    decision = decided(request)
    assert isinstance(decision, Admit)
    return decision


def refused(request: RequestFacts) -> Refuse:
    decision = decided(request)
    assert isinstance(decision, Refuse)
    return decision


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["rule"])
def test_each_case_of_the_matrix(case: dict[str, Any]) -> None:
    """The decision is the one in the case."""
    values = {"model": "tiny", **case["values"]}
    decision = decided(facts(values, path=case.get("path", "/v1/chat/completions")))

    if case["expect"] == "ok":
        assert isinstance(decision, Admit)
    else:
        assert isinstance(decision, Refuse)
        refusal = decision.error.refusal
        assert [refusal.code, refusal.status, decision.error.param] == case["expect"]


@pytest.mark.parametrize("key", ["model", "stream", "max_tokens", "n", "include_usage"])
def test_an_object_or_array_is_never_a_value(key: str) -> None:
    """Each field is a plain value."""
    assert refused(facts({"model": "tiny", key: Compound.VALUE})).error.refusal.status == 400


@pytest.mark.parametrize("caller", [None, Caller("vanished", "eve", "k9")])
def test_a_request_without_a_known_caller_is_refused(caller: Caller | None) -> None:
    """Identity comes from ext_authz; without it nothing is served, not even the model list."""
    for path in ("/v1/chat/completions", "/v1/models"):
        assert refused(facts({"model": "tiny"}, path, caller)).error.refusal.status == 401


def test_anothers_adapter_looks_exactly_like_none() -> None:
    """The name of another tenant's adapter is never confirmed."""
    theirs = refused(facts({"model": "rival"})).error
    none = refused(facts({"model": "nobody"})).error

    assert theirs.message.replace("rival", "nobody") == none.message
    assert (theirs.refusal, theirs.param) == (none.refusal, none.param)


def test_the_error_has_the_shape_of_its_path() -> None:
    """Anthropic's client reads Anthropic's errors."""
    assert refused(facts(path="/v1/messages")).shape is ErrorShape.ANTHROPIC
    assert refused(facts(path="/v1/responses")).shape is ErrorShape.OPENAI


def test_an_admitted_request_says_who_and_what() -> None:
    """Headers for the router, metadata for the limiter and the access log."""
    admit = admitted(facts({"model": "tiny", "max_tokens": 100.0, "n": 2.0}, size_bytes=900))

    assert admit.headers == {
        Header.TENANT: "acme",
        Header.USER: "alice",
        Header.MODEL: "tiny",
        Header.BASE: "tiny",
        Header.AFFINITY: "alice",
    }
    assert admit.admission == {
        AdmissionKey.RESERVATION: "r-1",
        AdmissionKey.TENANT: "acme",
        AdmissionKey.USER: "alice",
        AdmissionKey.KEY: "k1",
        AdmissionKey.MODEL: "tiny",
        AdmissionKey.BASE: "tiny",
        AdmissionKey.API: "chat",
        AdmissionKey.ESTIMATE: "700",
        AdmissionKey.ESTIMATE_PROMPT: "500",
        AdmissionKey.CHOICES: "2",
        AdmissionKey.CLIENT_USAGE: "untouched",
    }
    assert admit.rewrite is None


@pytest.mark.parametrize(
    ("measured", "prompt", "lesson"),
    [
        ({"text_bytes": 180.0}, "100", "180"),
        ({"text_bytes": 180.0, "images": 2.0}, "4196", "0"),
        ({"text_bytes": 0.0, "images": 1.0}, "2048", "0"),
        ({}, "8192", None),
        ({"text_bytes": "180"}, "8192", None),
    ],
    ids=["text", "two images", "an image alone", "an older reader", "no number"],
)
def test_a_prompt_is_estimated_by_its_text_and_its_images(
    measured: dict[str, Value], prompt: str, lesson: str | None
) -> None:
    """A body of 600 KB that is nearly all images holds little. An older reader measures nothing."""
    admit = admitted(facts({"model": "tiny", **measured}, size_bytes=600_000))

    assert admit.admission[AdmissionKey.ESTIMATE_PROMPT] == prompt
    assert admit.admission.get(AdmissionKey.TEXT_BYTES) == lesson


def test_an_adapter_is_named_with_its_base() -> None:
    """The router picks the base; vLLM picks the adapter by the body's model."""
    admit = admitted(facts({"model": "poet"}))

    assert admit.headers[Header.BASE] == "tiny"
    assert admit.headers[Header.MODEL] == "poet"
    assert admit.headers[Header.LORA] == "lora-poet"
    assert admit.admission[AdmissionKey.ADAPTER] == "lora-poet"
    assert admit.rewrite == Rewrite("lora-poet", force_usage=False)


def test_a_served_name_is_put_into_the_body() -> None:
    """Clients use the policy's name, vLLM its own."""
    assert admitted(facts({"model": "alias"})).rewrite == Rewrite("org/served", force_usage=False)


OUTPUT_BOUNDS: list[tuple[str, dict[str, Value], int]] = [
    ("/v1/chat/completions", {"max_tokens": 7.0}, 7),
    ("/v1/chat/completions", {"max_tokens": 7.0, "max_completion_tokens": 9.0}, 9),
    ("/v1/chat/completions", {"max_tokens": 7.0, "max_completion_tokens": None}, 7),
    ("/v1/chat/completions", {"max_tokens": 7.0, "n": 3.0}, 21),
    ("/v1/chat/completions", {"max_output_tokens": 7.0}, 512),
    ("/v1/completions", {}, 16),
    ("/v1/completions", {"max_tokens": None, "n": 2.0}, 32),
    ("/v1/completions", {"max_tokens": 0.0}, 0),
    ("/v1/responses", {"max_output_tokens": 7.0, "n": 3.0}, 7),
    ("/v1/messages", {"max_tokens": 7.0}, 7),
    ("/v1/embeddings", {"max_tokens": 7.0, "n": 5.0}, 0),
    ("/v1/completions", {"max_tokens": 7.0, "n": 2.0, "prompts": 3.0}, 42),
    ("/v1/completions", {"max_tokens": 7.0, "conversations": 3.0}, 7),
    ("/v1/chat/completions", {"max_tokens": 7.0, "prompts": 3.0, "conversations": 3.0}, 7),
    ("/v1/chat/completions/batch", {"max_tokens": 7.0, "n": 5.0, "conversations": 3.0}, 21),
    ("/v1/rerank", {"max_tokens": 7.0}, 0),
    ("/v1/score", {"prompts": 3.0}, 0),
]


@pytest.mark.parametrize(("path", "values", "output"), OUTPUT_BOUNDS)
def test_the_bound_of_each_api_counts(path: str, values: dict[str, Value], output: int) -> None:
    """The tokens reserved for the output are those that vLLM may generate."""
    admission = admitted(facts({"model": "tiny", **values}, path)).admission

    held = int(admission[AdmissionKey.ESTIMATE]) - int(admission[AdmissionKey.ESTIMATE_PROMPT])
    assert held == output


def test_a_list_of_prompts_is_not_bounded_by_one_context() -> None:
    """An embeddings request may hold thousands of texts, each with its own context."""
    many = admitted(facts({"model": "tiny"}, "/v1/embeddings", size_bytes=1_000_000)).admission
    single = admitted(facts({"model": "tiny"}, "/v1/messages", size_bytes=1_000_000)).admission

    assert int(many[AdmissionKey.ESTIMATE_PROMPT]) == 555_556
    assert int(single[AdmissionKey.ESTIMATE_PROMPT]) == 8192


# path, fields, what the client asked to see, whether usage must be forced on an upstream
# that does not force it itself
USAGE: list[tuple[str, dict[str, Value], str, bool]] = [
    ("chat/completions", {}, "untouched", False),
    ("chat/completions", {"include_usage": True}, "untouched", False),
    ("chat/completions", {"stream": True}, "none", True),
    ("chat/completions", {"stream": True, "include_usage": False}, "none", True),
    ("chat/completions", {"stream": True, "include_usage": True}, "final", True),
    ("chat/completions", {"stream": True, "continuous_usage": True}, "none", True),
    (
        "chat/completions",
        {"stream": True, "include_usage": True, "continuous_usage": True},
        "continuous",
        False,
    ),
    ("completions", {"stream": True}, "none", True),
    ("responses", {"stream": True}, "untouched", False),
    ("messages", {"stream": True}, "untouched", False),
    ("embeddings", {}, "untouched", False),
]


@pytest.mark.parametrize(("api", "values", "seen", "forced"), USAGE)
def test_usage_is_forced_only_where_a_stream_would_lack_it(
    api: str, values: dict[str, Value], seen: str, forced: bool
) -> None:
    """The body leaves the proxy only if something in it must change."""
    shy = admitted(facts({"model": "shy", **values}, f"/v1/{api}"))
    forcing = admitted(facts({"model": "tiny", **values}, f"/v1/{api}"))

    assert shy.admission[AdmissionKey.CLIENT_USAGE] == seen
    assert shy.rewrite == (Rewrite(None, force_usage=True) if forced else None)
    assert forcing.admission[AdmissionKey.CLIENT_USAGE] == seen
    assert forcing.rewrite is None


def test_the_cache_key_decides_affinity_and_is_safe_in_a_header() -> None:
    """Any text becomes hex, and the same text of another tenant becomes another value."""
    text = "line\r\nx-forged: 1 😀"
    ours = admitted(facts({"model": "tiny", "prompt_cache_key": text}))
    again = admitted(facts({"model": "tiny", "prompt_cache_key": text}))
    rival = Caller("rivals", "rita", "k7")
    theirs = admitted(facts({"model": "reserved", "prompt_cache_key": text}, caller=rival))

    affinity = ours.headers[Header.AFFINITY]
    assert set(affinity) <= set("0123456789abcdef")
    assert len(affinity) == 32
    assert again.headers[Header.AFFINITY] == affinity
    assert theirs.headers[Header.AFFINITY] != affinity


@pytest.mark.parametrize("key", ["", None, 7.0, Compound.VALUE])
def test_without_a_cache_key_the_user_decides_affinity(key: Value) -> None:
    """A conversation of one user stays on one pod."""
    admit = admitted(facts({"model": "tiny", "prompt_cache_key": key}))

    assert admit.headers[Header.AFFINITY] == "alice"


def test_the_model_list_is_the_tenants_own() -> None:
    """Sorted, in OpenAI's shape, only with existing models that the tenant may use."""
    decision = decided(facts(path="/v1/models?limit=1000"))

    assert isinstance(decision, Answer)
    listed = json.loads(decision.body)
    assert listed["object"] == "list"
    assert [entry["id"] for entry in listed["data"]] == [
        "alias",
        "org/slashed",
        "poet",
        "shy",
        "tiny",
    ]
    assert listed["data"][-1] == {
        "id": "tiny",
        "object": "model",
        "created": 0,
        "owned_by": "headgate",
        "max_model_len": 8192,
    }


@pytest.mark.parametrize("path", ["org/slashed", "org%2Fslashed", "org/slashed?x=1"])
def test_one_model_is_found_by_its_id(path: str) -> None:
    """Slashes may be escaped or not."""
    decision = decided(facts(path=f"/v1/models/{path}"))

    assert isinstance(decision, Answer)
    assert json.loads(decision.body)["id"] == "org/slashed"


@pytest.mark.parametrize("name", ["rival", "reserved", "gone", "nope", "%FF%00"])
def test_a_model_that_is_not_the_tenants_is_not_there(name: str) -> None:
    """404 for every id that the tenant may not use, for any reason."""
    error = refused(facts(path=f"/v1/models/{name}")).error

    assert error.refusal.status == 404


def test_a_long_name_is_not_sent_back_whole() -> None:
    """The error stays readable."""
    assert len(refused(facts({"model": "x" * 100_000})).error.message) < 200


def test_the_caller_of_the_metadata_is_charged() -> None:
    """Nothing else decides who pays."""
    assert admitted(facts({"model": "tiny"})).admission[AdmissionKey.KEY] == ALICE.key


@pytest.mark.parametrize("name", ["rival", "reserved", "gone", "nope", "", "%FF%00"])
def test_limits_of_a_model_that_is_not_the_tenants_are_not_there(name: str) -> None:
    """As in the model list, the models of other tenants do not exist."""
    error = refused(facts(path=f"/v1/headgate/limits?model={name}")).error

    assert (error.refusal.status, error.param) == (404, "model")


def test_limits_are_the_callers_own() -> None:
    """A query cannot name another tenant, user or key."""
    decision = decided(facts(path="/v1/headgate/limits?tenant=rivals&user=eve&key=k9"))

    assert decision == Peek(POLICY.tenants["acme"], ALICE, None)
    assert refused(facts(path="/v1/headgate/limits", caller=None)).error.refusal.status == 401


@pytest.mark.parametrize(
    ("cost", "tokens"), [(0, "0"), (50, "50"), (None, "500")], ids=["free", "flat", "estimate"]
)
@pytest.mark.parametrize("path", ["/tokenize", "/v1/messages/count_tokens"])
def test_an_api_without_usage_costs_what_the_policy_says(
    path: str, cost: int | None, tokens: str
) -> None:
    """The price is reserved as the prompt, so it is charged whatever way the answer ends."""
    policy = replace(POLICY, without_usage={Api.TOKENIZE: cost, Api.COUNT_TOKENS: cost})
    decision = decide(facts({"model": "tiny"}, path, size_bytes=900), policy, Estimator(), "r-1")

    assert isinstance(decision, Admit)
    assert decision.admission[AdmissionKey.ESTIMATE] == tokens
    assert decision.admission[AdmissionKey.ESTIMATE_PROMPT] == tokens


def test_what_only_the_platform_may_set_is_taken_out() -> None:
    """Only for that does the body leave the proxy."""
    sent = admitted(facts({"model": "tiny", "platform": "session_id,priority"}))

    assert sent.rewrite == Rewrite(None, False, drop=("priority", "session_id"))


def test_a_clients_salt_is_kept_apart_by_tenant() -> None:
    """Even if the tenant has no salt: the client's salt could be another tenant's."""
    sent = admitted(facts({"model": "tiny", "platform": "cache_salt"}))

    assert sent.rewrite == Rewrite(None, False, salt_tenant="acme")


def test_a_tenant_with_a_salt_has_it_in_every_request() -> None:
    """Whether the client sends a salt or not."""
    tenants = {**POLICY.tenants, "acme": replace(POLICY.tenants["acme"], cache_salt=True)}
    salted = replace(POLICY, tenants=tenants)
    decision = decide(facts({"model": "tiny"}), salted, Estimator(), "r-1")

    assert isinstance(decision, Admit)
    assert decision.rewrite == Rewrite(None, False, salt_tenant="acme")


FORM: dict[str, Value] = {"body": "form", "model": "tiny", "model_at": 54.0}
AUDIO = "/v1/audio/transcriptions"
BY_SECOND = replace(POLICY, without_usage={Api.TRANSCRIPTIONS: PerSecond(50)})


@pytest.mark.parametrize(
    ("more", "tokens"),
    [({}, 500), ({"stream": False}, 500), ({"stream": True}, 600)],
    ids=["whole", "no stream", "a stream has output"],
)
def test_audio_holds_the_seconds_that_its_size_may_be(more: dict[str, Value], tokens: int) -> None:
    """40,000 bytes at 4,000 a second."""
    asked = facts(FORM | more, AUDIO, size_bytes=40_000)
    decision = decide(asked, BY_SECOND, Estimator(), "r-1")

    assert isinstance(decision, Admit)
    assert decision.admission[AdmissionKey.ESTIMATE] == str(tokens)
    assert decision.admission[AdmissionKey.ESTIMATE_PROMPT] == "500"
    assert decision.admission[AdmissionKey.PER_SECOND] == "50"


def test_a_stream_of_audio_by_the_second_asks_for_usage_and_no_other_does() -> None:
    """The client sees the usage that it asked for, as in chat."""
    model = replace(POLICY.models["tiny"], forces_usage=False)
    policy = replace(BY_SECOND, models={**POLICY.models, "tiny": model})
    flat = replace(policy, without_usage={Api.TRANSCRIPTIONS: 500})
    streamed = facts(
        {**FORM, "stream": True, "include_usage": False, "include_usage_at": 9.0}, AUDIO
    )

    priced = decide(streamed, policy, Estimator(), "r-1")
    assert isinstance(priced, Admit)
    assert priced.rewrite == FormRewrite(54, b"tiny", b"tiny", UsageFields(9, None))
    assert priced.admission[AdmissionKey.CLIENT_USAGE] == "none"
    for request, other in ((facts(FORM, AUDIO), policy), (streamed, flat)):
        decision = decide(request, other, Estimator(), "r-1")
        assert isinstance(decision, Admit)
        assert decision.rewrite is None
        assert decision.admission[AdmissionKey.CLIENT_USAGE] == "untouched"
