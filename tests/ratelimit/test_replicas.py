"""How many replicas a replica believes in."""

from ratelimit.store.outage.replicas import LIFE_S, LiveReplicas
from tests.fakes import FakeClock


def test_until_the_store_has_told_the_operator_s_number_counts() -> None:
    replicas = LiveReplicas(3, FakeClock())
    replicas.lost()
    assert replicas.count == 3


def test_more_are_believed_at_once() -> None:
    replicas = LiveReplicas(1, FakeClock())
    replicas.seen(4)
    assert replicas.count == 4


def test_fewer_are_believed_after_a_life_without_a_failure() -> None:
    clock = FakeClock()
    replicas = LiveReplicas(3, clock)
    replicas.seen(2)
    clock.advance(LIFE_S - 1)
    replicas.seen(2)
    assert replicas.count == 3
    clock.advance(1)
    replicas.seen(2)
    assert replicas.count == 2


def test_a_store_that_came_back_empty_does_not_make_the_shares_larger() -> None:
    clock = FakeClock()
    replicas = LiveReplicas(1, clock)
    replicas.seen(3)
    for _ in range(5):
        replicas.seen(1)
        clock.advance(LIFE_S - 1)
        replicas.lost()
    assert replicas.count == 3


def test_others_that_come_back_in_time_end_the_doubt() -> None:
    clock = FakeClock()
    replicas = LiveReplicas(3, clock)
    replicas.seen(1)
    clock.advance(5)
    replicas.seen(3)
    clock.advance(LIFE_S)
    replicas.seen(2)
    assert replicas.count == 3


def test_a_count_is_never_below_this_replica_itself() -> None:
    clock = FakeClock()
    replicas = LiveReplicas(1, clock)
    replicas.seen(0)
    clock.advance(LIFE_S)
    replicas.seen(0)
    assert replicas.count == 1
