"""`auto`: which model a request gets by its size, and how a conversation keeps it."""

import json
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.lookup import size_to_keep
from extproc.pins.memory import MemoryPins
from extproc.sizes import KEPT_S, choose
from extproc.types import Admit, Answer, Peek, Refuse, Rewrite, SizePin, Value
from headgate.core.auto import Size, Sizes
from headgate.core.contract import AdmissionKey, Header
from headgate.core.policy import CompiledPolicy
from headgate.policy import parse_policy
from tests.extproc.builders import ALICE, facts
from tests.fakes import FakeClock

POLICY = """\
models:
  small: {upstream: "http://127.0.0.1:1", context_tokens: 8192, prices: {input: 1, output: 2}}
  medium:
    upstream: "http://127.0.0.1:2"
    context_tokens: 32768
    image_tokens: 4000
    prices: {input: 3, output: 6}
  large:
    upstream: "http://127.0.0.1:3"
    context_tokens: 131072
    prices: {input: 9, output: 18}
    served_as: org/Large
auto:
  small: {up_to: 4000, tools: false}
  medium: {up_to: 20000}
  large: {}
tenants:
  acme: {models: [auto, small]CEILING}
  rivals: {models: [small]}
"""


def policy(ceiling: str = "") -> CompiledPolicy:
    return parse_policy(POLICY.replace("CEILING", ceiling).encode(), "headgate.yaml")


WHOLE = policy()
CHEAP = policy(", auto_ceiling: {input: 3, output: 6}")


def decided(
    values: Mapping[str, Value],
    using: CompiledPolicy = WHOLE,
    at_least: str | None = None,
    path: str = "/v1/chat/completions",
) -> object:
    asked = structs.replace(facts({"model": "auto", **values}, path), at_least=at_least)
    return decide(asked, using, Estimator(), "r1")


def chosen(
    values: Mapping[str, Value],
    using: CompiledPolicy = WHOLE,
    at_least: str | None = None,
    path: str = "/v1/chat/completions",
) -> str:
    admit = decided(values, using, at_least, path)
    assert isinstance(admit, Admit), admit
    return admit.admission[AdmissionKey.MODEL]


def test_the_size_is_a_prompt_by_its_bytes_and_the_requested_output() -> None:
    # 1,800 bytes are 1,000 tokens; without a maximum the output counts as 512.
    assert chosen({"text_bytes": 1800.0, "max_tokens": 3000.0}) == "small"
    assert chosen({"text_bytes": 1801.0, "max_tokens": 3000.0}) == "medium"
    assert chosen({"text_bytes": 3488 * 1.8 // 1}) == "small"
    assert chosen({"text_bytes": 3489 * 1.8 // 1 + 1}) == "medium"


def test_an_image_counts_as_much_as_the_model_that_holds_most_for_one() -> None:
    assert chosen({"text_bytes": 10.0, "images": 1.0}) == "medium"
    assert chosen({"text_bytes": 10.0, "images": 5.0}) == "large"


def test_a_model_without_tools_gets_no_request_with_tools() -> None:
    assert chosen({"text_bytes": 10.0, "fields": "tools=2"}) == "medium"
    assert chosen({"text_bytes": 10.0, "fields": "n=1"}) == "small"


def test_a_request_for_which_no_model_is_large_enough_gets_the_largest() -> None:
    assert chosen({"text_bytes": 1e6}) == "large"
    assert chosen({"text_bytes": 1e6}, CHEAP) == "medium"


def test_the_whole_admission_is_that_of_the_chosen_model() -> None:
    admit = decided({"text_bytes": 100_000.0, "max_tokens": 100.0})

    assert isinstance(admit, Admit)
    assert admit.headers[Header.MODEL] == admit.headers[Header.BASE] == "large"
    assert admit.admission[AdmissionKey.SERVED_AS] == "org/Large"
    assert int(admit.admission[AdmissionKey.ESTIMATE]) == 55_556 + 100
    assert isinstance(admit.rewrite, Rewrite)
    assert admit.rewrite.model == "org/Large"


def test_vllm_gets_the_name_that_it_knows_also_where_it_is_the_policy_s() -> None:
    admit = decided({"text_bytes": 10.0})

    assert isinstance(admit, Admit)
    assert isinstance(admit.rewrite, Rewrite)
    assert admit.rewrite.model == "small"
    assert AdmissionKey.SERVED_AS not in admit.admission


def test_a_ceiling_leaves_out_the_models_above_it() -> None:
    assert chosen({"text_bytes": 10.0}, policy(", auto_ceiling: {input: 1, output: 2}")) == "small"
    assert chosen({"text_bytes": 60_000.0}, CHEAP) == "medium"


def test_auto_is_a_grant_of_its_own() -> None:
    """Its models need no grant; a tenant without it is told nothing of it."""
    direct = decide(facts({"model": "medium"}), WHOLE, Estimator(), "r1")
    rival = structs.replace(ALICE, tenant="rivals")
    foreign = decide(facts({"model": "auto"}, caller=rival), WHOLE, Estimator(), "r1")

    assert isinstance(direct, Refuse)
    assert isinstance(foreign, Refuse)
    assert foreign.error.refusal.status == 404
    assert chosen({"text_bytes": 20_000.0}) == "medium"


def test_a_maximum_above_every_context_is_refused() -> None:
    refused = decided({"text_bytes": 10.0, "max_tokens": 131_073.0})

    assert isinstance(refused, Refuse)
    assert "from 1 to 131072" in refused.error.message


def test_vectors_of_different_models_are_not_mixed() -> None:
    refused = decided({}, path="/v1/embeddings")

    assert isinstance(refused, Refuse)
    assert refused.error.refusal.status == 400
    assert "'auto' does not answer this API" in refused.error.message


def test_the_list_shows_auto_with_the_largest_window_that_the_tenant_may_use() -> None:
    for using, window in ((WHOLE, 131_072), (CHEAP, 32_768)):
        listed = decide(facts(path="/v1/models"), using, Estimator(), "r1")
        one = decide(facts(path="/v1/models/auto"), using, Estimator(), "r1")
        assert isinstance(listed, Answer)
        assert isinstance(one, Answer)
        data = json.loads(listed.body)["data"]
        assert [entry["id"] for entry in data] == ["auto", "small"]
        assert data[0]["max_model_len"] == window
        assert data[0] == json.loads(one.body)


def test_the_limits_of_auto_are_those_of_all_models() -> None:
    peek = decide(facts(path="/v1/headgate/limits?model=auto"), WHOLE, Estimator(), "r1")

    assert isinstance(peek, Peek)
    assert peek.model is None
    assert peek.tenant.usable == {"small", "medium", "large"}


def test_a_conversation_never_gets_a_smaller_model_again() -> None:
    assert chosen({"text_bytes": 10.0}, at_least="medium") == "medium"
    assert chosen({"text_bytes": 10.0}, at_least="gone") == "small"
    assert chosen({"text_bytes": 1e5}, at_least="medium") == "large"


def test_only_a_conversation_with_a_name_has_a_size_to_remember() -> None:
    named = facts({"model": "auto", "text_bytes": 10.0, "prompt_cache_key": "c"})
    kept = size_to_keep(named, WHOLE)
    other = structs.replace(named, caller=structs.replace(ALICE, user="bob"))
    rival = structs.replace(named, caller=structs.replace(ALICE, tenant="rivals"))

    assert kept is not None
    assert (kept.model, kept.order) == ("small", ("small", "medium", "large"))
    assert size_to_keep(other, WHOLE) == kept
    assert size_to_keep(rival, WHOLE) is None
    assert size_to_keep(facts({"model": "auto"}), WHOLE) is None
    assert size_to_keep(facts({"model": "small", "prompt_cache_key": "c"}), WHOLE) is None
    bad = facts({"model": "auto", "prompt_cache_key": "c", "max_tokens": "5"})
    assert size_to_keep(bad, WHOLE) is None


NAMES = ("a", "b", "c", "d")
ORDERS = st.lists(st.integers(1, 10_000), min_size=1, max_size=4).map(sorted)


@st.composite
def size_lists(draw: st.DrawFn) -> Sizes:
    """Sizes as the policy allows them: each takes what the one before it takes."""
    bounds = draw(ORDERS)
    tools, images = draw(st.integers(0, len(bounds))), draw(st.integers(0, len(bounds)))
    return tuple(
        Size(name, bound, tools=index >= tools, images=index >= images)
        for index, (name, bound) in enumerate(zip(NAMES, bounds, strict=False))
    )


@given(
    sizes=size_lists(),
    tokens=st.tuples(st.integers(0, 12_000), st.integers(0, 12_000)).map(sorted),
    tools=st.tuples(st.booleans(), st.booleans()).map(sorted),
    images=st.tuples(st.booleans(), st.booleans()).map(sorted),
)
def test_a_request_that_asks_for_more_never_gets_a_smaller_model(
    sizes: Sizes, tokens: list[int], tools: list[bool], images: list[bool]
) -> None:
    less, more = (
        sizes.index(choose(sizes, tokens[at], has_tools=tools[at], has_images=images[at]))
        for at in (0, 1)
    )

    assert less <= more


@given(sizes=size_lists(), tokens=st.integers(0, 12_000), at_least=st.sampled_from([None, *NAMES]))
def test_a_request_that_fits_into_one_model_gets_a_model_that_it_fits(
    sizes: Sizes, tokens: int, at_least: str | None
) -> None:
    size = choose(sizes, tokens, at_least=at_least)

    assert size.up_to >= tokens or all(other.up_to < tokens for other in sizes)


@given(models=st.lists(st.sampled_from(NAMES), min_size=1, max_size=8))
async def test_the_remembered_size_is_the_largest_so_far(models: list[str]) -> None:
    pins = MemoryPins(FakeClock(0))
    for index, model in enumerate(models):
        largest = await pins.largest(SizePin("c", model, NAMES, KEPT_S))
        assert largest == max(models[: index + 1])
