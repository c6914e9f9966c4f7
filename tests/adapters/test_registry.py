"""The registry in memory: whose names, and on which pods."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.adapters.registry import AdapterRow, MemoryRegistry
from headgate.core.adapters import AdaptersUnavailableError
from headgate.core.rendezvous import ordered

PODS = st.lists(st.from_regex(r"10\.0\.0\.[0-9]{1,3}:8000", fullmatch=True), unique=True)


def row(name: str, tenant: str, *shared: str, is_removed: bool = False) -> AdapterRow:
    return AdapterRow(name, tenant, "tiny", shared, ((1, 100),), is_removed)


def filled(*rows: AdapterRow) -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.replace(rows)
    return registry


def test_an_adapter_is_its_owners_and_of_those_who_share_it() -> None:
    registry = filled(row("sql", "acme", "lab"), row("law", "lab"))
    assert registry.names_of("acme") == ["sql"]
    assert registry.names_of("lab") == ["law", "sql"]
    assert registry.names_of("other") == []
    assert registry.find("law", "acme") is None
    assert registry.find("sql", "lab") is registry.find("sql", "acme")


def test_before_it_is_filled_no_name_is_taken_for_unknown() -> None:
    with pytest.raises(AdaptersUnavailableError):
        MemoryRegistry().find("sql", "acme")


def test_sharing_no_more_takes_the_name_away() -> None:
    registry = filled(row("sql", "acme", "lab"))
    registry.update([row("sql", "acme")])
    assert registry.find("sql", "lab") is None
    assert registry.find("sql", "acme") is not None


def test_a_removed_adapter_has_a_base_and_no_user() -> None:
    registry = filled(row("sql", "acme"))
    registry.update([row("sql", "acme", is_removed=True)])
    assert registry.find("sql", "acme") is None
    assert registry.base_of("sql") == "tiny"
    assert len(registry) == 0


def test_places_are_replaced_as_a_whole() -> None:
    registry = filled()
    registry.place([("sql@1", "10.0.0.1:8000"), ("sql@1", "10.0.0.2:8000")])
    assert set(registry.pods_of("sql@1")) == {"10.0.0.1:8000", "10.0.0.2:8000"}
    registry.place([])
    assert registry.pods_of("sql@1") == ()


@given(PODS)
def test_a_pod_that_leaves_changes_the_order_of_no_other(pods: list[str]) -> None:
    order = ordered("sql@1", tuple(pods))
    assert set(order) == set(pods)
    for gone in pods:
        left = [pod for pod in pods if pod != gone]
        assert ordered("sql@1", tuple(left)) == tuple(pod for pod in order if pod != gone)
