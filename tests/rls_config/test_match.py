"""A descriptor meets the limit of its most specific chain."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from headgate.rls_config import parse_domains
from ratelimit.descriptors.tree import Met, Pattern, meet

TEXT = Path(__file__).with_name("match.yaml").read_text()
CASES: list[dict[str, Any]] = YAML(typ="safe").load(TEXT)["cases"]


def configuration() -> bytes:
    """The first part of the file, as its own file: its numbers are as written."""
    lines = TEXT[TEXT.index("configuration:\n") : TEXT.index("cases:\n")].splitlines()[1:]
    return "\n".join(line.removeprefix("  ") for line in lines).encode()


TOP = parse_domains(((Path("match.yaml"), configuration()),))["shop"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_a_descriptor_meets_the_most_specific_chain_or_nothing(case: dict[str, Any]) -> None:
    entries = tuple((key, value) for key, value in case["entries"])
    counted = tuple((key, value) for key, value in case.get("counted", entries))

    met = meet(TOP, entries)

    if case["meets"] is None:
        assert met is None
    else:
        assert isinstance(met, Met)
        assert (met.rate.limit, met.entries) == (case["meets"], counted)


texts = st.text("ab*", max_size=8)


@given(texts, st.text("ab", max_size=12))
def test_a_pattern_matches_a_value_with_its_parts_in_order(text: str, value: str) -> None:
    def slowly(parts: tuple[str, ...], rest: str) -> bool:
        if len(parts) == 1:
            return parts[0] == rest
        if not rest.startswith(parts[0]):
            return False
        rest = rest[len(parts[0]) :]
        return any(slowly(parts[1:], rest[at:]) for at in range(len(rest) + 1))

    pattern = Pattern.of(text + "*")
    assert pattern.matches(value) == slowly(pattern.parts, value)


def test_a_pattern_of_many_wildcards_is_matched_quickly() -> None:
    assert not Pattern.of("a*" * 50 + "b").matches("a" * 100_000)
