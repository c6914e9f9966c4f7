"""docs/glossary.md: each word once, in order, and each place that it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"


def entries() -> dict[str, list[str]]:
    """The other cells of each word's rows."""
    table = re.findall(r"^\| ([^|]+) \| ([^|]+) \|([^|]*)\|$", GLOSSARY.read_text("utf-8"), re.M)
    rows: dict[str, list[str]] = {}
    for word, meaning, place in table[1:]:
        rows.setdefault(word, []).extend([meaning, place])
    return rows


def test_every_row_of_the_table_is_an_entry() -> None:
    rows = [line for line in GLOSSARY.read_text("utf-8").splitlines() if line.startswith("|")]

    assert len(rows) - 2 == sum(len(cells) // 2 for cells in entries().values())


def test_words_are_sorted_and_none_has_two_entries() -> None:
    words = list(entries())

    assert words == sorted(words, key=str.casefold)
    assert [word for word, cells in entries().items() if len(cells) != 2] == []


def test_words_differ_in_more_than_their_case() -> None:
    words = [word.casefold() for word in entries()]

    assert len(set(words)) == len(words)


@pytest.mark.parametrize("word", entries())
def test_a_meaning_is_one_sentence_or_a_few(word: str) -> None:
    meaning = entries()[word][0]

    assert meaning.endswith(".")
    assert len(re.findall(r"\.(?:\s|$)", meaning)) <= 3


def test_each_class_that_it_names_is_in_its_file() -> None:
    named = re.findall(r"`(\w+)` in `([\w/.]+)`", GLOSSARY.read_text("utf-8"))

    assert named
    for name, file in named:
        assert re.search(rf"^class {name}\b", (ROOT / file).read_text("utf-8"), re.M), (name, file)
