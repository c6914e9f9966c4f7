"""A key keeps its pod as far as the bound lets it; the others are in the key's own order."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from extproc.types import Placing
from headgate.core.placement_metrics import Choice
from headgate.core.rendezvous import ordered
from headgate.placement.loads import PodLoads
from headgate.placement.places import BOUND_PERCENT, MOST_HOSTS, BoundedPlaces

PODS = tuple(f"10.0.0.{number}:8000" for number in range(1, 7))
KEYS = st.text(min_size=1, max_size=20)


def places(pods: tuple[str, ...] = PODS) -> BoundedPlaces:
    return BoundedPlaces(lambda _: pods, PodLoads(lambda: 0.0))


def placing(key: str, slots: int = 1) -> Placing:
    return Placing(PODS, {}, key, slots)


@given(KEYS)
def test_without_load_the_list_begins_as_the_order_of_the_key(key: str) -> None:
    assert places().hosts(PODS, placing(key)) == ordered(key, PODS)[:MOST_HOSTS]


@given(KEYS, st.sampled_from(PODS))
def test_a_pod_that_leaves_moves_only_its_own_keys(key: str, gone: str) -> None:
    before = ordered(key, PODS)
    after = ordered(key, tuple(pod for pod in PODS if pod != gone))

    assert after == tuple(pod for pod in before if pod != gone)


def test_keys_are_spread_evenly() -> None:
    counts = Counter(ordered(f"key {number}", PODS)[0] for number in range(6_000))

    assert set(counts) == set(PODS)
    assert all(850 < count < 1_150 for count in counts.values()), counts


@given(st.lists(KEYS, min_size=1, max_size=80), st.integers(1, 8))
def test_no_pod_gets_more_than_the_bound_or_its_slots(keys: list[str], slots: int) -> None:
    chosen: Counter[str] = Counter()
    chooses = places()
    for asked, key in enumerate(keys, 1):
        chosen[chooses.hosts(PODS, placing(key, slots))[0]] += 1
        bound = max(slots, -(-BOUND_PERCENT * asked // (100 * len(PODS))))
        assert max(chosen.values()) <= bound


def test_a_hot_key_stays_where_it_is_while_its_pod_has_free_slots() -> None:
    chooses = places()
    firsts = [chooses.hosts(PODS, placing("hot", slots=4))[0] for _ in range(5)]

    assert firsts[:4] == [ordered("hot", PODS)[0]] * 4
    assert firsts[4] == ordered("hot", PODS)[1]


def test_a_request_that_ended_makes_room() -> None:
    chooses = places()
    first = chooses.hosts(PODS, placing("hot"))[0]
    second = chooses.hosts(PODS, placing("hot"))[0]
    chooses.ended(first, 0.0)

    assert second != first
    assert chooses.hosts(PODS, placing("hot"))[0] == first


def test_without_a_key_the_pod_with_the_fewest_requests_is_first() -> None:
    chooses = places()
    firsts = Counter(chooses.hosts(PODS, placing(""))[0] for _ in range(2 * len(PODS)))

    assert firsts == dict.fromkeys(PODS, 2)


def test_without_a_known_pod_the_list_is_empty() -> None:
    assert places(()).hosts(PODS, placing("key")) == ()


@given(st.lists(KEYS, max_size=30))
def test_no_pod_is_in_a_list_twice(keys: list[str]) -> None:
    chooses = places()
    for key in keys:
        hosts = chooses.hosts(PODS, placing(key))
        assert len(set(hosts)) == len(hosts) == MOST_HOSTS


@given(st.lists(KEYS, max_size=40), KEYS)
def test_without_slots_a_key_has_its_pod_whatever_the_load(others: list[str], key: str) -> None:
    chooses = places()
    for each in others:
        chooses.hosts(PODS, placing(each))
    firsts = {chooses.hosts(PODS, Placing(PODS, {}, key, None))[0] for _ in range(20)}

    assert firsts == {ordered(key, PODS)[0]}


@given(st.lists(KEYS, min_size=1, max_size=60), st.integers(1, 4))
def test_each_choice_is_counted_as_what_it_was(keys: list[str], slots: int) -> None:
    counted: Counter[Choice] = Counter()
    loads = PodLoads(lambda: 0.0)
    chooses = BoundedPlaces(lambda _: PODS, loads, lambda choice: counted.update([choice]))
    own = 0
    for key in keys:
        own += chooses.hosts(PODS, placing(key, slots))[0] == ordered(key, PODS)[0]
    chooses.hosts(PODS, placing(""))

    assert counted[Choice.OWN] == own
    assert counted[Choice.NEXT] == len(keys) - own
    assert counted[Choice.FEWEST] == 1


@given(
    st.lists(KEYS, min_size=1, max_size=60, unique=True),
    st.sampled_from(PODS),
    st.integers(60, 80),
)
def test_with_room_a_pod_that_leaves_or_comes_moves_only_its_own_keys(
    keys: list[str], gone: str, slots: int
) -> None:
    """The fewest moves that there can be: each other key keeps its pod, and those come back."""
    left = tuple(pod for pod in PODS if pod != gone)
    chosen = [
        {key: places(pods).hosts(PODS, placing(key, slots))[0] for key in keys}
        for pods in (PODS, left, PODS)
    ]

    moved = {key for key in keys if chosen[0][key] != chosen[1][key]}
    assert moved == {key for key in keys if chosen[0][key] == gone}
    assert chosen[2] == chosen[0]
