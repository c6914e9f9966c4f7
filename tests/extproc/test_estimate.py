"""The estimate: its bounds, which always hold, and the effect of learning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.estimate import MAX_TOKENS, START_OUTPUT_TOKENS, Estimator
from headgate.core.settlement import Estimate

CONTEXT = 8192

counts = st.integers(min_value=-(2**70), max_value=2**70) | st.integers(-5, 5000)
lessons = st.lists(st.tuples(counts, counts, counts), max_size=20)


def estimate(
    estimator: Estimator,
    size_bytes: int | None = 1800,
    max_tokens: int | None = 10,
    n: int = 1,
    many_prompts: bool = False,
) -> Estimate:
    return estimator.estimate(
        "acme",
        "tiny",
        size_bytes,
        max_tokens=max_tokens,
        n=n,
        context_tokens=CONTEXT,
        many_prompts=many_prompts,
    )


def taught(*lesson: int, times: int = 200) -> Estimator:
    estimator = Estimator()
    for _ in range(times):
        estimator.learn("acme", "tiny", *lesson)
    return estimator


@given(
    lessons,
    st.none() | st.integers(1, 2**40),
    st.none() | st.integers(0, CONTEXT),
    st.integers(1, 16384),
    st.integers(1, 2**31),
)
def test_no_lesson_breaks_the_bounds(
    learned: list[tuple[int, int, int]],
    size_bytes: int | None,
    max_tokens: int | None,
    n: int,
    context_tokens: int,
) -> None:
    """The prompt is within size and context, the output within n contexts, all above 0."""
    estimator = Estimator()
    for lesson in learned:
        estimator.learn("acme", "tiny", *lesson)

    held = estimator.estimate(
        "acme", "tiny", size_bytes, max_tokens=max_tokens, n=n, context_tokens=context_tokens
    )

    assert 1 <= held.prompt <= context_tokens
    assert held.prompt <= (size_bytes or context_tokens)
    assert held.prompt <= held.tokens <= MAX_TOKENS
    most = min(context_tokens, max_tokens if max_tokens is not None else context_tokens)
    assert held.tokens - held.prompt <= n * most


@given(st.integers(1, 10_000_000), lessons)
def test_many_prompts_are_bounded_by_their_bytes_alone(
    size_bytes: int, learned: list[tuple[int, int, int]]
) -> None:
    """No byte-level vocabulary gives more tokens than bytes."""
    estimator = Estimator()
    for lesson in learned:
        estimator.learn("acme", "tiny", *lesson)

    assert 1 <= estimate(estimator, size_bytes, many_prompts=True).prompt <= size_bytes


def test_the_start_is_an_upper_bound_of_real_vocabularies() -> None:
    """Before anything is learned: bytes / 1.8, and the requested maximum."""
    assert estimate(Estimator()) == Estimate(tokens=1010, prompt=1000)


def test_a_body_of_unknown_size_may_fill_the_context() -> None:
    """An unknown size is not free."""
    assert estimate(Estimator(), size_bytes=None).prompt == CONTEXT


def test_each_choice_may_use_the_maximum() -> None:
    """n times the maximum is reserved."""
    assert estimate(Estimator(), n=5) == Estimate(tokens=1050, prompt=1000)


def test_without_a_maximum_a_usual_answer_is_held() -> None:
    """And n of them for n choices."""
    assert estimate(Estimator(), max_tokens=None).tokens == 1000 + START_OUTPUT_TOKENS
    assert estimate(Estimator(), max_tokens=None, n=2).tokens == 1000 + 2 * START_OUTPUT_TOKENS


def test_a_learned_output_is_at_most_what_the_context_leaves() -> None:
    """vLLM stops at the end of the context."""
    held = estimate(taught(1800, 1000, 8000), max_tokens=None)

    assert held.tokens <= CONTEXT


def test_a_given_maximum_is_never_learned_away() -> None:
    """The client may use the whole maximum that it asked for."""
    held = estimate(taught(1000, 250, 1), size_bytes=1000, max_tokens=4000)

    assert held.tokens - held.prompt == 4000


def test_the_largest_request_fits_into_envoys_addend() -> None:
    """Envoy accepts no hits_addend above 1e9."""
    held = Estimator().estimate(
        "acme", "tiny", 100, max_tokens=131_072, n=16_384, context_tokens=131_072
    )

    assert held.tokens == MAX_TOKENS


def test_uniform_traffic_brings_the_estimate_close() -> None:
    """After many similar requests the reservation is at most a tenth too large, never too small."""
    estimator = taught(1000, 250, 100)

    prompt = estimate(estimator, size_bytes=1000).prompt
    output = estimate(estimator, size_bytes=1000, max_tokens=None).tokens - prompt
    assert 250 <= prompt <= 275
    assert 100 <= output <= 110


@given(st.integers(1, 555), st.integers(0, 60))
def test_learning_never_holds_less_than_uniform_traffic_uses(prompt: int, times: int) -> None:
    """While it falls from its start value, the estimate stays above the used tokens."""
    estimator = taught(1000, prompt, 50, times=times)

    assert estimate(estimator, size_bytes=1000).prompt >= prompt


def test_varied_traffic_keeps_a_margin() -> None:
    """When every second request is dense, a dense request is still covered."""
    estimator = Estimator()
    for _ in range(100):
        estimator.learn("acme", "tiny", 1000, 100, 50)
        estimator.learn("acme", "tiny", 1000, 400, 50)

    assert estimate(estimator, size_bytes=1000).prompt >= 400


@pytest.mark.parametrize(
    "lesson",
    [
        (0, 10, 10),
        (-100, 10, 10),
        (100, 0, 10),
        (100, -1, 10),
        (100, 10, -1),
        (100, 2**60, 10),
        (100, 10, 2**60),
    ],
)
def test_nonsense_teaches_nothing(lesson: tuple[int, int, int]) -> None:
    """A broken record leaves the estimate where it was."""
    poisoned = taught(*lesson)

    assert estimate(poisoned, max_tokens=None) == estimate(Estimator(), max_tokens=None)


def test_an_answer_without_output_teaches_only_the_ratio() -> None:
    """Embeddings must not make chats look free."""
    embedded = taught(1000, 250, 0)

    held = estimate(embedded, size_bytes=1000, max_tokens=None)
    assert held.tokens - held.prompt == START_OUTPUT_TOKENS


def test_tenants_and_models_learn_apart() -> None:
    """One tenant's short answers do not shrink another tenant's reservations."""
    estimator = taught(1000, 10, 1)
    fresh = Estimator()

    for tenant, model in (("other", "tiny"), ("acme", "big")):
        assert estimator.estimate(
            tenant, model, 1000, max_tokens=None, n=1, context_tokens=CONTEXT
        ) == fresh.estimate(tenant, model, 1000, max_tokens=None, n=1, context_tokens=CONTEXT)


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    """A pair that learned long ago starts again."""
    estimator = Estimator(max_entries=2)
    for tenant in ("a", "b", "a", "c"):
        for _ in range(50):
            estimator.learn(tenant, "tiny", 1000, 100, 10)

    def prompt(tenant: str) -> int:
        held = estimator.estimate(tenant, "tiny", 1000, max_tokens=1, n=1, context_tokens=CONTEXT)
        return held.prompt

    assert prompt("a") < 200
    assert prompt("b") == 556
    assert prompt("c") < 200
