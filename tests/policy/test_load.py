"""Reading the file, whatever it holds."""

import gc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.errors import OperatorError
from headgate.policy import PolicyError, load_policy, parse_policy
from headgate.policy.load import MAX_SIZE_BYTES, find_problems
from tests.policy.policies import MODELS, problems_of, with_tenants

ALLOWED = "a policy is a readable file of at most 33554432 bytes"
GOOD = with_tenants("acme")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "headgate.yaml"

    assert [f"{path}: cannot be read (No such file or directory); {ALLOWED}"] == problems_of(path)


def test_a_folder_is_reported(tmp_path: Path) -> None:
    assert [f"{tmp_path}: cannot be read (not a file); {ALLOWED}"] == problems_of(tmp_path)


def test_an_impossible_path_is_reported() -> None:
    assert [f"a\0b: cannot be read (not a path); {ALLOWED}"] == problems_of(Path("a\0b"))


def test_a_file_that_is_too_big_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "headgate.yaml"
    path.write_bytes(b"#" * (MAX_SIZE_BYTES + 1))

    assert [f"{path}: is larger than 33554432 bytes; {ALLOWED}"] == problems_of(path)


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "headgate.yaml"
    path.write_text(GOOD)

    assert problems_of(path) == []
    assert {"acme"} == set(load_policy(path).tenants)


def test_a_byte_order_mark_and_windows_line_ends_are_ignored() -> None:
    text = "\ufeff" + GOOD.replace("\n", "\r\n")

    assert {"acme"} == set(parse_policy(text.encode(), "headgate.yaml").tenants)


def test_a_policy_error_is_the_operators_and_reads_as_its_lines() -> None:
    with pytest.raises(OperatorError) as caught:
        parse_policy(b"models: {}\ntenants: {}\n", "headgate.yaml")

    assert isinstance(caught.value, PolicyError)
    assert str(caught.value).splitlines() == list(caught.value.problems)
    assert len(caught.value.problems) == 2


def test_a_url_without_quotes_in_braces_is_read_or_reported() -> None:
    """YAML 1.2 allows it and Python's parser reads it; the C parser does not."""
    text = MODELS.replace('"', "") + "tenants: {acme: {models: [tiny]}}\n"
    policy, problems = find_problems(text.encode())

    assert policy is not None or ["put the text in quotes" in p.advice for p in problems] == [True]


@pytest.mark.parametrize("before", ["", "À", "# €\n# 世界\nmodels: "])
def test_the_place_of_a_control_character_is_right_whatever_comes_before(before: str) -> None:
    _, (problem,) = find_problems(f"{before}\0".encode())

    assert problem.fault == "the file contains a control character (U+0000) here"
    assert (problem.line, problem.column) == (
        before.count("\n") + 1,
        len(before.rsplit("\n", maxsplit=1)[-1]) + 1,
    )


@given(st.binary(max_size=200))
def test_no_bytes_bring_it_down(data: bytes) -> None:
    policy, problems = find_problems(data)

    assert (policy is None) == bool(problems)


def test_a_control_character_is_found_after_characters_of_many_bytes() -> None:
    _, (problem,) = find_problems("tenants:\n  é\u3000: \x00".encode())

    assert "U+0000" in problem.fault
    assert (problem.line, problem.column) == (2, 7)


WORDS = [
    *("models", "tiny", "base", "upstream", "prices", "input"),
    *("tenants", "acme", "timezone", "keys", "id", "user", "sha256", "<<"),
    *("limits", "count", "tokens", "per", "each", "users"),
]
SCALARS = [*WORDS, "5", "-1", "0.5", "true", "", "day", '"sk-x"', "*a", "&a x", "!t 1", "1e99"]


def flow_list(items: list[str]) -> str:
    return "[" + ", ".join(items) + "]"


def flow_mapping(entries: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in entries.items()) + "}"


VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        st.lists(inner, max_size=3).map(flow_list)
        | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4).map(flow_mapping)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(VALUES, VALUES)
def test_no_shape_of_values_brings_it_down(models: str, tenants: str) -> None:
    text = f"models: {models}\ntenants: {tenants}\n"
    _, problems = find_problems(text.encode())

    assert problems
    assert all(problem.render("FILE").isprintable() for problem in problems)


@settings(max_examples=200)
@given(st.data())
def test_a_file_cut_short_anywhere_is_a_policy_or_has_problems(data: st.DataObject) -> None:
    text = (MODELS + "tenants:\n  acme:\n    models: [tiny]\n    timezone: 'UTC'\n").encode()
    cut = data.draw(st.integers(0, len(text)))
    policy, problems = find_problems(text[:cut])

    assert (policy is None) == bool(problems)


def test_forty_thousand_keys_fit_and_load(tmp_path: Path) -> None:
    keys = "".join(
        f"      - {{id: k{number}, user: user-{number}, sha256: '{number:064x}'}}\n"
        for number in range(40_000)
    )
    path = tmp_path / "headgate.yaml"
    path.write_text(f"{MODELS}tenants:\n  acme:\n    models: [tiny]\n    keys:\n{keys}")

    assert len(load_policy(path).keys) == 40_000


@pytest.mark.parametrize("text", [GOOD, "models: {}\n", "}"])
@pytest.mark.parametrize("was_on", [True, False])
def test_reading_leaves_the_search_for_cycles_as_it_was(text: str, was_on: bool) -> None:
    try:
        (gc.enable if was_on else gc.disable)()
        with suppress(PolicyError):
            parse_policy(text.encode(), "headgate.yaml")
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


def test_a_bigger_policy_makes_no_more_cycles() -> None:
    """So that there is nothing to search for."""

    def cycles(tenants: int) -> int:
        text = with_tenants(*(f"t{number}" for number in range(tenants)))
        gc.collect()
        parse_policy(text.encode(), "headgate.yaml")
        return gc.collect()

    gc.disable()
    try:
        assert cycles(1) == cycles(100)
    finally:
        gc.enable()
