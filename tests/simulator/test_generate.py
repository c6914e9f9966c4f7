"""How much is generated, and how prompts are counted: invariants."""

from hypothesis import given
from hypothesis import strategies as st

from headgate.simulator import prompts
from headgate.simulator.generate import PIECES, plan
from headgate.simulator.prefix_cache import BLOCK_TOKENS, PrefixCache
from headgate.simulator.vllm_errors import to_json

CONTEXT = 100
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(
    st.lists(st.integers(1, CONTEXT - 1), min_size=1, max_size=4),
    st.integers(1, 4),
    st.none() | st.integers(1, CONTEXT),
    st.none() | st.integers(1, CONTEXT),
)
def test_a_choice_never_leaves_the_context_or_the_maximum(
    prompt_tokens: list[int], n: int, max_tokens: int | None, natural: int | None
) -> None:
    choices = plan(
        prompt_tokens,
        n,
        max_tokens=max_tokens,
        natural_tokens=natural,
        context=CONTEXT,
        default_tokens=64,
    )

    assert [choice.index for choice in choices] == list(range(n * len(prompt_tokens)))
    for choice in choices:
        limit = min(CONTEXT - choice.prompt_tokens, max_tokens or CONTEXT)
        assert 1 <= choice.tokens <= limit
        assert (choice.finish_reason == "length") == (choice.tokens == limit)
        assert choice.text == "".join(choice.piece(at) for at in range(choice.tokens))


def test_no_piece_needs_an_escape_in_json() -> None:
    assert all(to_json(piece) == f'"{piece}"' for piece in PIECES)


@given(TEXTS)
def test_tokens_stay_below_the_bound_of_real_vocabularies(text: str) -> None:
    size_bytes = len(text.encode())

    assert prompts.count_tokens(prompts.from_text(text)) <= max(1, size_bytes / 1.8)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=50))
def test_a_prompt_of_ids_has_as_many_tokens(ids: list[int]) -> None:
    prompt = prompts.from_ids(ids)

    assert prompts.count_tokens(prompt) == len(ids)
    assert prompts.token_ids(prompt) == ids


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5), TEXTS)
def test_the_chat_template_adds_a_constant_for_each_message(
    turns: list[tuple[str, str]], tools: str
) -> None:
    alone = sum(prompts.count_tokens(text.encode()) for _, text in turns)
    rendered = prompts.from_messages(turns, tools)

    frames = 4 * (len(turns) + 1)
    assert prompts.count_tokens(rendered) == (alone + frames + prompts.count_tokens(tools.encode()))


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 200))
def test_cached_tokens_are_the_whole_blocks_of_the_common_prefix(
    first: int, second: int, common: int
) -> None:
    cache = PrefixCache(1000)
    other = prompts.from_ids([1] * min(first, common) + [2] * max(first - common, 0))
    two = prompts.from_ids([1] * min(second, common) + [3] * max(second - common, 0))

    assert cache.cached_tokens("tiny", "", other) == 0
    cached = cache.cached_tokens("tiny", "", two)

    shared = min(first, second, common)
    assert cached == min(shared, second - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    assert cache.cached_tokens("tiny", "salt", two) == 0
    assert cache.cached_tokens("lora-a", "", two) == 0


def test_the_prefix_cache_forgets_what_was_not_used_for_longest() -> None:
    cache = PrefixCache(capacity_blocks=2)
    cache.cached_tokens("tiny", "", prompts.from_ids([1] * 32))
    cache.cached_tokens("tiny", "", prompts.from_ids([2] * 32))

    assert cache.cached_tokens("tiny", "", prompts.from_ids([2] * 40)) == 32
    assert cache.cached_tokens("tiny", "", prompts.from_ids([1] * 40)) == 0
