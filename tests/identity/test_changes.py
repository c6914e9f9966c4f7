"""The chain of the change log: no edit of any row stays unseen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.identity.changes import NO_HASH, BrokenChainError, Chain, Change, Head, hash_of

Row = tuple[Change, bytes]


def log_of(count: int) -> list[Row]:
    rows: list[Row] = []
    for number in range(1, count + 1):
        change = Change(
            number=number,
            at_s=1_800_000_000.25 + number,
            actor=f"person-{number % 3}",
            origin="192.0.2.7",
            action="key.issue",
            object=f"~{number}",
            before=None,
            after={"tenant": "acme", "labels": {"b": "1", "a": "2"}},
        )
        rows.append((change, hash_of(change, rows[-1][1] if rows else NO_HASH)))
    return rows


def verify(rows: list[Row], generation: int, known: Head | None = None) -> Head:
    chain = Chain(known)
    for change, hash in rows:
        chain.add(change, hash)
    return chain.end(generation)


def test_the_log_as_it_was_written_is_whole() -> None:
    rows = log_of(5)

    assert verify(rows, 5) == Head(5, rows[-1][1])
    assert verify([], 0) == Head()


@given(at=st.integers(0, 4), field=st.sampled_from(["at_s", "actor", "origin", "action", "object"]))
def test_an_edited_value_breaks_the_chain_at_its_row(at: int, field: str) -> None:
    rows = log_of(5)
    change, hash = rows[at]
    value = change.at_s + 1e-6 if field == "at_s" else "other"
    rows[at] = (replace(change, **{field: value}), hash)

    with pytest.raises(BrokenChainError, match="was edited") as caught:
        verify(rows, 5)

    assert caught.value.number == at + 1


@given(st.integers(0, 4))
def test_an_edited_object_breaks_the_chain_even_with_a_new_hash(at: int) -> None:
    rows = log_of(5)
    edited = replace(rows[at][0], after={"tenant": "globex"})
    rows[at] = (edited, hash_of(edited, rows[at - 1][1] if at else NO_HASH))
    if at == 4:  # the newest row: only a head that was noted outside shows it
        known = Head(5, log_of(5)[-1][1])
        with pytest.raises(BrokenChainError, match="all was rewritten"):
            verify(rows, 5, known)
        return
    with pytest.raises(BrokenChainError, match=f"change {at + 2}: was edited"):
        verify(rows, 5)


@given(st.integers(0, 4))
def test_a_missing_row_is_found(at: int) -> None:
    rows = log_of(5)
    del rows[at]

    with pytest.raises(BrokenChainError, match="is missing") as caught:
        verify(rows, 5)

    assert caught.value.number == at + 1


def test_rows_in_another_order_are_found() -> None:
    rows = log_of(3)
    rows[0], rows[1] = rows[1], rows[0]

    with pytest.raises(BrokenChainError):
        verify(rows, 3)


def test_an_end_that_was_cut_off_with_its_counter_is_found_by_a_noted_head() -> None:
    rows = log_of(5)
    known = Head(5, rows[-1][1])

    with pytest.raises(BrokenChainError, match="change 4: is missing, of 5 changes"):
        verify(rows[:3], 3, known)


def test_the_hash_does_not_depend_on_the_order_of_members() -> None:
    change = log_of(1)[0][0]
    turned = replace(change, after={"labels": {"a": "2", "b": "1"}, "tenant": "acme"})

    assert hash_of(change, NO_HASH) == hash_of(turned, NO_HASH)
