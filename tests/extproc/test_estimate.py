"""The estimate: its bounds, which always hold, and the effect of learning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.estimate import (
    LEAST_TOKENS_PER_BYTE,
    MAX_TOKENS,
    START_OUTPUT_TOKENS,
    START_TOKENS_PER_BYTE,
    Estimator,
    PromptSize,
    Subject,
)
from headgate.core.settlement import Estimate

CONTEXT = 8192
ALICE = Subject("acme", "alice", "tiny")

counts = st.integers(min_value=-(2**70), max_value=2**70) | st.integers(-5, 5000)
lessons = st.lists(st.tuples(counts, counts, counts), max_size=20)


def estimate(
    estimator: Estimator,
    size_bytes: int | None = 1800,
    max_tokens: int | None = 10,
    n: int = 1,
    many_prompts: bool = False,
    image_tokens: int = 0,
    output_cap: int | None = None,
) -> Estimate:
    return estimator.estimate(
        ALICE,
        PromptSize(size_bytes, image_tokens),
        max_tokens=max_tokens,
        n=n,
        context_tokens=CONTEXT,
        many_prompts=many_prompts,
        output_cap=output_cap,
    )


def taught(*lesson: int, times: int = 200) -> Estimator:
    estimator = Estimator()
    for _ in range(times):
        estimator.learn(ALICE, *lesson)
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
        estimator.learn(ALICE, *lesson)

    held = estimator.estimate(
        ALICE, PromptSize(size_bytes), max_tokens=max_tokens, n=n, context_tokens=context_tokens
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
        estimator.learn(ALICE, *lesson)

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
        ALICE, PromptSize(100), max_tokens=131_072, n=16_384, context_tokens=131_072
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
        estimator.learn(ALICE, 1000, 260, 50)
        estimator.learn(ALICE, 1000, 500, 400)

    held = estimate(estimator, size_bytes=1000, max_tokens=None)
    assert held.prompt >= 500
    assert held.tokens - held.prompt >= 400


@pytest.mark.parametrize(
    "lesson",
    [
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


def test_a_prompt_with_images_teaches_only_the_length_of_outputs() -> None:
    """Its tokens are the images', so they say nothing about text."""
    shown = taught(0, 5000, 100)

    held = estimate(shown, max_tokens=None)
    assert held.prompt == 1000
    assert 100 <= held.tokens - held.prompt <= 110


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 10**6), st.integers(0, 10**4))),
    st.integers(1, 10**7),
)
def test_no_history_makes_an_estimate_smaller_than_the_floor(
    learned: list[tuple[int, int, int]], text_bytes: int
) -> None:
    """Plain text needs at most bytes/1.8 tokens: 2.2 times what is always held."""
    estimator = Estimator()
    for lesson in learned:
        estimator.learn(ALICE, *lesson)

    held = estimate(estimator, text_bytes, many_prompts=True).prompt
    assert held >= text_bytes * LEAST_TOKENS_PER_BYTE
    assert text_bytes / 1.8 <= held * START_TOKENS_PER_BYTE / LEAST_TOKENS_PER_BYTE + 1


@pytest.mark.parametrize("lesson", [(630_000, 1_049, 20), (500_100, 60, 20), (120, 1_100, 20)])
def test_a_user_who_sends_odd_prompts_teaches_nothing_about_another(
    lesson: tuple[int, int, int],
) -> None:
    """Sixty padded chats by bob leave the next chat of alice as it was."""
    estimator = Estimator()
    for _ in range(60):
        estimator.learn(Subject("acme", "bob", "tiny"), *lesson)

    assert estimate(estimator, 40_000) == estimate(Estimator(), 40_000)


def test_an_image_is_held_flat() -> None:
    """Besides the text, and both within the context."""
    assert estimate(Estimator(), 180, image_tokens=2048).prompt == 100 + 2048
    assert estimate(Estimator(), 180, image_tokens=100_000).prompt == CONTEXT


@given(lessons, st.integers(1, 16), st.integers(1, 1000))
def test_without_a_maximum_the_cap_bounds_the_output(
    learned: list[tuple[int, int, int]], n: int, cap: int
) -> None:
    """All choices together hold at most the cap. A maximum that the client gave is held in full."""
    estimator = Estimator()
    for lesson in learned:
        estimator.learn(ALICE, *lesson)

    held = estimate(estimator, max_tokens=None, n=n, output_cap=cap)
    assert 1 <= held.tokens - held.prompt <= cap
    given_maximum = estimate(estimator, max_tokens=2000, output_cap=cap)
    assert given_maximum.tokens - given_maximum.prompt == 2000


@pytest.mark.parametrize("answers", range(1, 10))
def test_short_answers_never_make_the_hold_grow(answers: int) -> None:
    """An answer below the expected length is no reason to expect longer ones."""
    fresh = estimate(Estimator(), max_tokens=None).tokens
    assert estimate(taught(1800, 1000, 20, times=answers), max_tokens=None).tokens < fresh


@pytest.mark.parametrize(
    "other",
    [Subject("other", "alice", "tiny"), Subject("acme", "alice", "big"), ALICE._replace(user="x")],
)
def test_tenants_users_and_models_learn_apart(other: Subject) -> None:
    """The short answers of one do not shrink the reservations of another."""
    estimator = taught(1000, 10, 1)

    def held(by: Estimator) -> Estimate:
        size = PromptSize(1000)
        return by.estimate(other, size, max_tokens=None, n=1, context_tokens=CONTEXT)

    assert held(estimator) == held(Estimator())


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    """A subject that learned long ago starts again."""
    estimator = Estimator(max_entries=2)
    for tenant in ("a", "b", "a", "c"):
        for _ in range(50):
            estimator.learn(Subject(tenant, "u", "tiny"), 1000, 300, 10)

    def prompt(tenant: str) -> int:
        subject, size = Subject(tenant, "u", "tiny"), PromptSize(1000)
        held = estimator.estimate(subject, size, max_tokens=1, n=1, context_tokens=CONTEXT)
        return held.prompt

    assert prompt("a") < 400
    assert prompt("b") == 556
    assert prompt("c") < 400
