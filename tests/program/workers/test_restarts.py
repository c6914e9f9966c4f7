"""The pauses before a worker starts again."""

from headgate.program.workers.restarts import Backoff


def test_a_worker_that_ends_again_and_again_waits_twice_as_long_up_to_ten_seconds() -> None:
    backoff = Backoff()

    pauses = [backoff.pause_s(1.0) for _ in range(9)]

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_worker_that_ran_for_a_minute_starts_again_at_once() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.pause_s(1.0)

    assert backoff.pause_s(60.0) == 0.1
