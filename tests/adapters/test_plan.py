"""The planner: K of N with slots, few moves, the least recently used goes first, one step a pod."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.adapters.plan.places import placed
from headgate.adapters.plan.planner import plan
from headgate.adapters.plan.values import (
    GONE_S,
    IDLE_S,
    LONGEST_S,
    Known,
    Load,
    Plan,
    Pool,
    SeenPod,
    Spot,
    Unload,
    Wanted,
)

NOW_S = 1_000_000.0
IDLE_SINCE_S = NOW_S - IDLE_S - 1
NAMES = st.integers(0, 30).map(lambda number: f"a{number}@1")
WANTED = st.builds(
    Wanted,
    version=NAMES,
    copies=st.integers(1, 4),
    used_s=st.floats(NOW_S - 1_000, NOW_S),
    in_flight=st.integers(0, 2),
)
ALL_WANTED = st.lists(WANTED, unique_by=lambda one: one.version, max_size=20)
SLOTS = st.dictionaries(
    st.integers(1, 12).map(lambda n: f"10.0.0.{n}:8000"), st.integers(0, 4), max_size=8
)


def wanted(version: str, copies: int = 1, used_s: float = IDLE_SINCE_S, **more: int) -> Wanted:
    return Wanted(version=version, copies=copies, used_s=used_s, **more)


def copies_of(spots: Iterable[Spot]) -> Counter[str]:
    return Counter(spot.version for spot in spots)


@given(ALL_WANTED, SLOTS)
def test_no_pod_is_over_its_slots_and_no_version_over_its_copies(
    all_wanted: list[Wanted], slots: dict[str, int]
) -> None:
    spots = placed(all_wanted, (), slots, NOW_S)
    on = Counter(spot.pod for spot in spots)
    assert all(on[pod] <= slots[pod] for pod in on)
    of = copies_of(spots)
    assert all(of[one.version] <= one.copies for one in all_wanted)


@given(ALL_WANTED, SLOTS)
def test_fewer_slots_and_fewer_copies_are_obeyed_at_once(
    all_wanted: list[Wanted], slots: dict[str, int]
) -> None:
    before = placed(all_wanted, (), slots, NOW_S)
    fewer = {pod: max(0, number - 1) for pod, number in slots.items()}
    less = [replace(one, copies=max(1, one.copies - 1)) for one in all_wanted]
    spots = placed(less, before, fewer, NOW_S)
    on, of = Counter(spot.pod for spot in spots), copies_of(spots)
    assert all(on[pod] <= fewer[pod] for pod in on)
    assert all(of[one.version] <= one.copies for one in less)


@given(ALL_WANTED, SLOTS)
def test_a_slot_stays_empty_only_if_every_version_has_its_copies(
    all_wanted: list[Wanted], slots: dict[str, int]
) -> None:
    spots = placed(all_wanted, (), slots, NOW_S)
    free = [pod for pod in slots if sum(spot.pod == pod for spot in spots) < slots[pod]]
    of = copies_of(spots)
    for one in all_wanted:
        holders = {spot.pod for spot in spots if spot.version == one.version}
        assert of[one.version] == one.copies or set(free) <= holders


@given(ALL_WANTED, SLOTS)
def test_nothing_moves_if_nothing_changes(all_wanted: list[Wanted], slots: dict[str, int]) -> None:
    spots = placed(all_wanted, (), slots, NOW_S)
    assert placed(all_wanted, spots, slots, NOW_S) == spots


@given(ALL_WANTED, SLOTS, st.data())
def test_a_lost_pod_moves_its_own_copies_alone(
    all_wanted: list[Wanted], slots: dict[str, int], data: st.DataObject
) -> None:
    """All were used just now, so that nobody gives a place up for another."""
    recent = [wanted(one.version, one.copies, NOW_S) for one in all_wanted]
    before = placed(recent, (), slots, NOW_S)
    if not slots:
        return
    lost = data.draw(st.sampled_from(sorted(slots)))
    left = {pod: number for pod, number in slots.items() if pod != lost}
    after = placed(recent, before, left, NOW_S)
    stayed = {spot for spot in before if spot.pod != lost}
    assert stayed <= after
    assert len(after - stayed) <= len(before) - len(stayed) or _had_less(before, recent)


def _had_less(spots: frozenset[Spot], all_wanted: list[Wanted]) -> bool:
    """Whether some version had fewer copies than it shall have."""
    of = copies_of(spots)
    return any(of[one.version] < one.copies for one in all_wanted)


@given(ALL_WANTED, SLOTS)
def test_a_new_pod_moves_nothing(all_wanted: list[Wanted], slots: dict[str, int]) -> None:
    recent = [wanted(one.version, one.copies, NOW_S) for one in all_wanted]
    before = placed(recent, (), slots, NOW_S)
    assert before <= placed(recent, before, {**slots, "10.9.9.9:8000": 4}, NOW_S)


@given(ALL_WANTED, ALL_WANTED, SLOTS)
@settings(max_examples=200)
def test_what_is_in_flight_or_in_use_never_loses_its_place_to_another(
    first: list[Wanted], second: list[Wanted], slots: dict[str, int]
) -> None:
    before = placed(first, (), slots, NOW_S)
    busy = {one.version for one in first if not one.is_idle(NOW_S, IDLE_S)}
    known = {one.version for one in first}
    both = [*first, *(one for one in second if one.version not in known)]
    after = placed(both, before, slots, NOW_S)
    assert {spot for spot in before if spot.version in busy} <= after


def test_the_least_recently_used_gives_its_place_to_one_in_use() -> None:
    old = [wanted("a@1", used_s=NOW_S - 900), wanted("b@1", used_s=NOW_S - 800)]
    slots = {"p1:1": 2}
    before = placed(old, (), slots, NOW_S)
    after = placed([*old, wanted("c@1", used_s=NOW_S)], before, slots, NOW_S)
    assert {spot.version for spot in after} == {"b@1", "c@1"}


def test_free_pods_get_about_as_many_versions_each() -> None:
    slots = {f"10.0.0.{number}:8000": 200 for number in range(10)}
    versions = [wanted(f"a{number}@1", copies=2) for number in range(500)]
    on = Counter(spot.pod for spot in placed(versions, (), slots, NOW_S))
    assert sum(on.values()) == 1000
    assert all(75 <= on[pod] <= 125 for pod in slots)


def test_two_versions_do_not_take_turns() -> None:
    """Each is unused for a while, but none for much longer than the other."""
    one, other = wanted("a@1", used_s=NOW_S - 100), wanted("b@1", used_s=NOW_S - 70)
    assert placed([one, other], [Spot("p1:1", "a@1")], {"p1:1": 1}, NOW_S) == {Spot("p1:1", "a@1")}


def test_a_request_in_flight_is_believed_for_as_long_as_one_may_run() -> None:
    assert wanted("a@1", used_s=NOW_S - LONGEST_S + 1, in_flight=1).is_busy(NOW_S)
    assert not wanted("a@1", used_s=NOW_S - LONGEST_S, in_flight=1).is_busy(NOW_S)


def test_every_version_has_a_place_before_any_has_two() -> None:
    versions = [wanted("hot@1", copies=3, used_s=NOW_S), wanted("cold@1"), wanted("old@1")]
    spots = placed(versions, (), {"p1:1": 1, "p2:1": 1, "p3:1": 1}, NOW_S)
    assert copies_of(spots) == {"hot@1": 1, "cold@1": 1, "old@1": 1}


# One round.

ROOTS = {"a@1": "/adapters/a@1", "b@1": "/adapters/b@1", "c@1": "/adapters/c@1"}
POD = "10.0.0.1:8000"


def pod(*names: str, silent_s: float = 0.0, **roots: str) -> SeenPod:
    listed = {name: ROOTS[name] for name in names} | roots
    return SeenPod(address=POD, listed=None if silent_s else listed, silent_s=silent_s)


def planned(
    all_wanted: list[Wanted], seen: SeenPod, *, live: int = 2, listed: int = 2, **known: frozenset
) -> Plan:
    pool = Pool(live=live, listed=listed, pods=(seen,))
    return plan(all_wanted, pool, Known(**known), ROOTS, NOW_S)


def test_a_place_is_open_once_the_pod_lists_the_version_from_our_folder() -> None:
    assert planned([wanted("a@1")], pod()).actions == (Load(Spot(POD, "a@1")),)
    assert planned([wanted("a@1")], pod()).open == frozenset()
    done = planned([wanted("a@1")], pod("a@1"))
    assert (done.actions, done.open) == ((), {Spot(POD, "a@1")})


def test_a_version_from_another_folder_is_loaded_again_from_ours() -> None:
    seen = pod(**{"a@1": "/elsewhere"})
    assert planned([wanted("a@1")], seen).actions == (Unload(Spot(POD, "a@1")),)
    assert planned([wanted("a@1")], seen).open == frozenset()


def test_a_restarted_pod_gets_its_adapters_back_one_at_a_time() -> None:
    places = frozenset({Spot(POD, "a@1"), Spot(POD, "b@1")})
    both = [wanted("a@1"), wanted("b@1", used_s=NOW_S)]
    first = planned(both, pod(), places=places)
    assert first.places == places
    assert first.actions == (Load(Spot(POD, "b@1")),)
    assert planned(both, pod("b@1"), places=places).actions == (Load(Spot(POD, "a@1")),)


def test_a_pod_that_is_silent_for_a_while_keeps_its_places_and_gets_no_request() -> None:
    places = frozenset({Spot(POD, "a@1")})
    short = planned([wanted("a@1")], pod(silent_s=GONE_S - 1), places=places)
    assert (short.places, short.open, short.actions) == (places, frozenset(), ())
    assert planned([wanted("a@1")], pod(silent_s=GONE_S), places=places).places == frozenset()


def test_a_pod_that_answers_late_keeps_its_requests_and_is_left_in_peace() -> None:
    places = frozenset({Spot(POD, "a@1"), Spot(POD, "b@1")})
    seen = SeenPod(address=POD, listed={"a@1": ROOTS["a@1"]}, silent_s=3.0)
    result = planned([wanted("a@1"), wanted("b@1")], seen, places=places)
    assert (result.open, result.actions) == ({Spot(POD, "a@1")}, ())


def test_a_withdrawn_version_is_unloaded_after_its_last_request_and_a_grace() -> None:
    busy = [wanted("a@1", copies=0, used_s=NOW_S - 10)]
    assert planned(busy, pod("a@1")).actions == ()
    flying = [wanted("a@1", copies=0, in_flight=1)]
    assert planned(flying, pod("a@1")).actions == ()
    assert planned([wanted("a@1", copies=0)], pod("a@1")).actions == (Unload(Spot(POD, "a@1")),)
    assert planned(busy, pod("a@1")).open == frozenset()


def test_what_lost_its_place_stays_loaded_until_the_room_is_needed() -> None:
    old, new = wanted("a@1", used_s=NOW_S - 900), wanted("b@1", used_s=NOW_S)
    places = frozenset({Spot(POD, "a@1")})
    roomy = planned([old, new], pod("a@1"), live=1, places=places)
    assert roomy.actions == (Load(Spot(POD, "b@1")),)
    full = planned([old, new], pod("a@1"), live=1, listed=1, places=places)
    assert full.actions == (Unload(Spot(POD, "a@1")),)
    assert full.open == frozenset()


def test_adapters_of_others_take_their_part_and_are_left_alone() -> None:
    seen = pod(static="/models/static")
    both = [wanted("a@1"), wanted("b@1", used_s=NOW_S)]
    assert {spot.version for spot in planned(both, seen).places} == {"b@1"}
    full = pod(static="/models/static", other="/models/other")
    assert planned(both, full).actions == ()


def test_a_load_that_failed_for_good_is_not_tried_again_anywhere() -> None:
    result = planned([wanted("a@1")], pod(), failed=frozenset({"a@1"}))
    assert (result.places, result.actions) == (frozenset(), ())


def test_a_load_that_failed_for_good_ends_no_place_where_the_version_runs() -> None:
    places = frozenset({Spot(POD, "a@1"), Spot("10.0.0.2:8000", "a@1")})
    failed = frozenset({"a@1"})
    result = planned([wanted("a@1", copies=2)], pod("a@1"), failed=failed, places=places)
    assert result.open == {Spot(POD, "a@1")}


def test_a_load_that_may_succeed_later_waits_while_others_go_on() -> None:
    both = [wanted("a@1"), wanted("b@1", used_s=NOW_S)]
    result = planned(both, pod(), delayed=frozenset({Spot(POD, "b@1")}))
    assert result.actions == (Load(Spot(POD, "a@1")),)


@given(ALL_WANTED, st.integers(1, 3), st.integers(0, 3), st.data())
def test_rounds_reach_a_state_in_which_nothing_is_left_to_do(
    all_wanted: list[Wanted], live: int, more: int, data: st.DataObject
) -> None:
    """It does not matter what the pod had loaded before."""
    roots = {one.version: f"/adapters/{one.version}" for one in all_wanted}
    names = sorted(roots)
    before = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    listed = {name: roots[name] for name in before}
    known = Known()
    for _ in range(3 * len(all_wanted) + len(before) + 3):
        seen = SeenPod(address=POD, listed=dict(listed))
        pool = Pool(live=live, listed=live + more, pods=(seen,))
        result = plan(all_wanted, pool, known, roots, NOW_S)
        assert sum(spot.pod == POD for spot in result.open) <= live
        known = Known(places=result.places)
        for action in result.actions:
            if isinstance(action, Load):
                assert len(listed) < live + more
                listed[action.spot.version] = roots[action.spot.version]
            else:
                del listed[action.spot.version]
        if not result.actions:
            break
    assert not result.actions
