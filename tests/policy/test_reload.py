"""The policy in force follows its file, and is always a valid policy."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.policy import PolicyError
from headgate.program import reload
from headgate.program.reload import Contents, PolicyWatcher
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S
from tests.policy.policies import with_tenants

BAD = "models: {}\ntenants: {}\n"


class Rig:
    """A watcher over a file that tests write, with its metrics and changes."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.write(text)
        self.clock = FakeClock(path.stat().st_mtime + 1000)
        self.metrics = Metrics(CollectorRegistry(), self.clock)
        self.changes: list[CompiledPolicy] = []
        self.watcher = self.watch()

    def watch(self, upstream: str | None = None) -> PolicyWatcher:
        watcher = PolicyWatcher(self.path, self.clock, self.metrics, upstream=upstream)
        watcher.set_follower(self.follow)
        return watcher

    async def follow(self, policy: CompiledPolicy) -> None:
        self.changes.append(policy)

    def write(self, text: str) -> None:
        """Replaces the file in one step, as editors do."""
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.path)

    async def check(self) -> bool:
        return await self.watcher.check_once()

    def tenants(self) -> set[str]:
        return set(self.watcher.current().tenants)

    def reloads(self, result: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "headgate_policy_reloads_total", {"result": result}
        )
        return value or 0.0

    def is_refused(self) -> bool:
        return self.metrics.registry.get_sample_value("headgate_policy_refused") == 1

    def loaded_at_s(self) -> float | None:
        return self.metrics.registry.get_sample_value("headgate_policy_loaded_timestamp_seconds")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "headgate.yaml", with_tenants("acme"))


def test_the_first_policy_is_in_force_at_once(rig: Rig) -> None:
    assert {"acme"} == rig.tenants()
    assert rig.changes == []
    assert rig.clock.now_s() == rig.loaded_at_s()


def test_a_bad_first_policy_is_an_error(rig: Rig) -> None:
    rig.write(BAD)

    with pytest.raises(PolicyError):
        rig.watch()


async def test_a_changed_file_comes_into_force(rig: Rig) -> None:
    rig.write(with_tenants("acme", "globex"))
    rig.clock.advance(60)

    assert await rig.check()
    assert {"acme", "globex"} == rig.tenants()
    assert [rig.watcher.current()] == rig.changes
    assert rig.reloads("applied") == 1
    assert rig.clock.now_s() == rig.loaded_at_s()


async def test_an_unchanged_file_changes_nothing(rig: Rig) -> None:
    before = rig.watcher.current()
    rig.write(with_tenants("acme"))

    assert not await rig.check()
    assert not await rig.check()
    assert before is rig.watcher.current()
    assert rig.changes == []


async def test_the_file_is_not_read_again_while_its_stat_stays(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.check()
    monkeypatch.setattr(rig.watcher, "_read", lambda: pytest.fail("read"))

    assert not await rig.check()


async def test_a_second_change_within_one_tick_of_the_file_system_is_seen(rig: Rig) -> None:
    rig.clock.advance(-1000)
    stat = rig.path.stat()
    rig.path.write_text(with_tenants("beta"))
    os.utime(rig.path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert await rig.check()
    rig.path.write_text(with_tenants("zeta"))
    os.utime(rig.path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))

    assert await rig.check()
    assert {"zeta"} == rig.tenants()


async def test_a_bad_file_keeps_the_last_good_policy_and_is_reported_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.write(BAD)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert not await rig.check()

    assert {"acme"} == rig.tenants()
    assert rig.changes == []
    assert rig.reloads("refused") == 1
    assert [
        "policy refused, the last good one stays in force:",
        f"{rig.path}:1: models: is empty; allowed: models by name, each with upstream and"
        " context_tokens, or with base",
        f"{rig.path}:2: tenants: is empty; allowed: tenants by name, each with at least models",
    ] == caplog.messages


async def test_another_bad_file_is_reported_again(rig: Rig) -> None:
    for text in (BAD, "models: []\n", BAD):
        rig.write(text)
        await rig.check()

    assert rig.reloads("refused") == 3


async def test_a_file_with_many_mistakes_does_not_flood_the_log(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.write("models: {}\n" + "".join(f"unknown{number}: 1\n" for number in range(500)))
    await rig.check()

    assert len(caplog.messages) == 22
    assert caplog.messages[-1] == f"and 482 more: run `headgate check {rig.path}`"


async def test_a_vanished_file_keeps_the_last_good_policy_and_is_reported_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.path.unlink()
    for _ in range(3):
        assert not await rig.check()

    assert {"acme"} == rig.tenants()
    assert rig.reloads("refused") == 1
    [message] = caplog.messages
    assert "cannot be read (No such file or directory)" in message


@pytest.mark.parametrize("spoil", [lambda rig: rig.write(BAD), lambda rig: rig.path.unlink()])
async def test_the_return_of_the_same_policy_is_reported_but_is_no_change(
    rig: Rig, caplog: pytest.LogCaptureFixture, spoil: Callable[[Rig], None]
) -> None:
    spoil(rig)
    await rig.check()
    rig.write(with_tenants("acme"))
    with caplog.at_level(logging.INFO):
        assert not await rig.check()
        assert not await rig.check()

    assert [message for message in caplog.messages if "again" in message] == [
        f"policy is the one in force again: {rig.path}"
    ]
    spoil(rig)
    await rig.check()
    assert rig.reloads("refused") == 2


async def test_a_good_file_after_a_bad_one_comes_into_force(rig: Rig) -> None:
    rig.write(BAD)
    await rig.check()
    rig.write(with_tenants("globex"))

    assert await rig.check()
    assert {"globex"} == rig.tenants()


async def test_a_swapped_symlink_is_a_change_as_kubernetes_makes_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "headgate.yaml").write_text(with_tenants(name))
    data, swap = tmp_path / "..data", tmp_path / "..data_tmp"
    data.symlink_to("one")
    (tmp_path / "headgate.yaml").symlink_to(Path("..data", "headgate.yaml"))
    clock = FakeClock((tmp_path / "one").stat().st_mtime + 1000)
    watcher = PolicyWatcher(tmp_path / "headgate.yaml", clock, Metrics(CollectorRegistry(), clock))
    assert not await watcher.check_once()
    swap.symlink_to("two")
    swap.replace(data)

    assert await watcher.check_once()
    assert {"two"} == set(watcher.current().tenants)


async def test_a_file_that_changes_while_it_is_read_is_read_at_the_next_look(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = rig.watcher._read
    rig.write(with_tenants("half"))

    def read_then_written() -> Contents:
        contents = read()
        rig.write(with_tenants("half", "other"))
        return contents

    monkeypatch.setattr(rig.watcher, "_read", read_then_written)
    assert not await rig.check()
    monkeypatch.setattr(rig.watcher, "_read", read)

    assert await rig.check()
    assert {"half", "other"} == rig.tenants()


async def test_a_file_that_was_just_emptied_may_still_be_written(rig: Rig) -> None:
    rig.clock.advance(-1000)
    rig.path.write_text("")
    assert not await rig.check()
    assert rig.reloads("refused") == 0
    rig.clock.advance(1000)

    assert not await rig.check()
    assert rig.reloads("refused") == 1


async def test_a_change_that_cannot_be_applied_is_refused_and_the_next_one_is_not(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    full = True

    async def apply(policy: CompiledPolicy) -> None:
        if full and "globex" in policy.tenants:
            raise OSError("disk full")

    watcher = PolicyWatcher(rig.path, rig.clock, rig.metrics)
    watcher.set_follower(apply)
    rig.write(with_tenants("globex"))
    assert not await watcher.check_once()
    assert {"acme"} == set(watcher.current().tenants)
    assert caplog.messages[-1].endswith(f": {rig.path}: cannot be applied: disk full")
    assert rig.reloads("refused") == 1

    full = False
    rig.write(with_tenants("globex", "acme"))
    assert await watcher.check_once()


async def test_an_upstream_serves_every_model_of_every_policy_before_anyone_sees_it(
    rig: Rig,
) -> None:
    upstream = "http://127.0.0.1:9"
    watcher = rig.watch(upstream)
    assert {upstream} == {model.upstream for model in watcher.current().models.values()}

    rig.write(with_tenants("globex"))
    assert await watcher.check_once()
    for policy in (watcher.current(), rig.changes[-1]):
        assert {upstream} == {model.upstream for model in policy.models.values()}
        assert {None} == {model.versions for model in policy.models.values()}


async def test_an_open_watcher_finds_changes_by_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "CHECK_INTERVAL_S", 0.001)
    changed = asyncio.Event()

    async def follow(policy: CompiledPolicy) -> None:
        if "globex" in policy.tenants:
            changed.set()

    watcher = PolicyWatcher(rig.path, rig.clock, rig.metrics)
    watcher.set_follower(follow)
    async with watcher:
        rig.write(BAD)
        await asyncio.sleep(0)
        rig.write(with_tenants("globex"))
        await asyncio.wait_for(changed.wait(), timeout=PATIENCE_S)

    assert {"globex"} == set(watcher.current().tenants)


async def test_the_gauge_of_a_refused_policy_stands_for_as_long_as_the_bad_file(rig: Rig) -> None:
    assert not rig.is_refused()
    rig.write(BAD)
    await rig.check()
    rig.clock.advance(86_400)
    await rig.check()
    assert rig.is_refused()

    rig.watcher.look_again()  # as SIGHUP does
    rig.write(with_tenants("acme"))
    await rig.check()
    assert not rig.is_refused()


async def test_the_gauge_of_a_refused_policy_falls_with_a_better_one(rig: Rig) -> None:
    rig.write(BAD)
    await rig.check()

    rig.write(with_tenants("acme", "globex"))
    assert await rig.check()
    assert not rig.is_refused()
