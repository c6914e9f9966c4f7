"""The keys in memory: who is let in, until when, and what a restart keeps."""

import math
import os
from pathlib import Path

import pytest

from headgate.core.key_ring import WHOLE_TENANT, KeysUnavailableError
from headgate.core.policy import Caller, Count, Per
from headgate.identity.changes import Head
from headgate.identity.limits import KeyLimit, compiled
from headgate.identity.ring import MemoryRing, SecretRow
from headgate.identity.snapshot import Snapshot
from tests.fakes import FakeClock

STALE_S = 600.0
ALICE = Caller("acme", "alice", "~1")
LIMIT = KeyLimit(Count.REQUESTS, 5, Per.MINUTE)


def row(digest: bytes = b"a", **changes: object) -> SecretRow:
    usual = SecretRow(
        digest=digest,
        key="~1",
        tenant="acme",
        user="alice",
        expires_s=math.inf,
        is_revoked=False,
        models=None,
        limits=(),
    )
    return usual._replace(**changes)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ring(clock: FakeClock) -> MemoryRing:
    ring = MemoryRing(clock, STALE_S)
    ring.update([row()], Head(1, bytes(32)))
    ring.mark_good(clock.now_s())
    return ring


def test_a_live_key_has_its_caller_and_another_has_none(ring: MemoryRing) -> None:
    assert ring.find(b"a") == ALICE
    assert ring.find(b"b") is None


def test_a_revoked_key_is_gone_and_its_scope_stays_for_running_requests(ring: MemoryRing) -> None:
    ring.update([row(is_revoked=True)], Head(2, bytes(32)))

    assert ring.find(b"a") is None
    assert ring.scope_of("~1") is WHOLE_TENANT
    assert len(ring) == 0


def test_a_secret_ends_at_its_time(ring: MemoryRing, clock: FakeClock) -> None:
    ring.update([row(expires_s=clock.now_s() + 10)], Head(2, bytes(32)))
    assert ring.find(b"a") == ALICE

    clock.advance(10)

    assert ring.find(b"a") is None


def test_both_secrets_of_a_rotated_key_have_the_same_caller(ring: MemoryRing) -> None:
    ring.update([row(), row(b"b")], Head(2, bytes(32)))

    assert ring.find(b"a") == ring.find(b"b") == ALICE


def test_the_scope_of_a_key_is_what_it_was_issued_with(ring: MemoryRing) -> None:
    ring.update([row(models=("tiny",), limits=(LIMIT,))], Head(2, bytes(32)))

    scope = ring.scope_of("~1")

    assert scope is not None
    assert scope.models == {"tiny"}
    assert scope.limits == (compiled(LIMIT),)
    assert ring.scope_of("~2") is None


def test_before_the_first_load_nobody_can_be_told_from_a_stranger(clock: FakeClock) -> None:
    with pytest.raises(KeysUnavailableError):
        MemoryRing(clock, STALE_S).find(b"a")


def test_the_last_keys_are_taken_for_as_long_as_stated(ring: MemoryRing, clock: FakeClock) -> None:
    clock.advance(STALE_S)
    assert ring.find(b"a") == ALICE

    clock.advance(0.001)

    with pytest.raises(KeysUnavailableError):
        ring.find(b"a")


def test_last_used_is_noted_once_for_many_requests(ring: MemoryRing, clock: FakeClock) -> None:
    for _ in range(3):
        ring.find(b"a")
        clock.advance(1)

    assert ring.take_used() == {"~1": clock.now_s() - 1}
    assert ring.take_used() == {}


async def test_a_snapshot_keeps_keys_scopes_and_their_age_over_a_restart(
    ring: MemoryRing, clock: FakeClock, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    ring.update([row(), row(b"b", key="~2", models=("tiny",), limits=(LIMIT,))], Head(7, b"h" * 32))
    await Snapshot(file, clock).keep(ring)
    assert file.stat().st_mode & 0o777 == 0o600

    clock.advance(STALE_S - 1)
    fresh = MemoryRing(clock, STALE_S)
    await Snapshot(file, clock).read_into(fresh)

    assert fresh.head == Head(7, b"h" * 32)
    assert fresh.find(b"a") == ALICE
    assert fresh.scope_of("~2") == ring.scope_of("~2")
    clock.advance(2)
    with pytest.raises(KeysUnavailableError):
        fresh.find(b"a")


async def test_a_snapshot_that_is_no_longer_written_is_no_younger_for_it(
    ring: MemoryRing, clock: FakeClock, tmp_path: Path
) -> None:
    snapshot = Snapshot(tmp_path / "keys", clock)
    for _ in range(3):
        clock.advance(60)
        ring.mark_good(clock.now_s())
        await snapshot.keep(ring)

    assert (tmp_path / "keys").stat().st_mtime == clock.now_s()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x94\x09\x01\xc4\x00\x90"])
async def test_a_file_that_is_no_snapshot_is_as_good_as_none(
    clock: FakeClock, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    os.utime(file, (clock.now_s(), clock.now_s()))
    ring = MemoryRing(clock, STALE_S)

    await Snapshot(file, clock).read_into(ring)

    assert ring.head is None
    assert str(file) in caplog.text


async def test_a_snapshot_of_the_future_is_not_believed(
    ring: MemoryRing, clock: FakeClock, tmp_path: Path
) -> None:
    await Snapshot(tmp_path / "keys", clock).keep(ring)
    earlier = FakeClock(clock.now_s() - 1)
    fresh = MemoryRing(earlier, STALE_S)

    await Snapshot(tmp_path / "keys", earlier).read_into(fresh)

    assert fresh.head is None


async def test_a_folder_that_is_away_costs_nothing_but_a_warning(
    ring: MemoryRing, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await Snapshot(tmp_path / "gone" / "keys", clock).keep(ring)

    assert "cannot write the snapshot" in caplog.text
    assert ring.find(b"a") == ALICE
