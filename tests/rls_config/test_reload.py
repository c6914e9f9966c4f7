"""The domains in force follow their files, and are always good ones."""

import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from headgate.program.reload import RlsConfigWatcher
from headgate.rls_config import RlsConfigError
from tests.fakes import FakeClock


class Rig:
    """A watcher over a directory that tests write to, with its metrics."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("a.yaml", "domain: a\n")
        self.clock = FakeClock(folder.stat().st_mtime + 1000)
        self.metrics = Metrics(CollectorRegistry(), self.clock)
        self.watcher = RlsConfigWatcher((folder,), self.clock, self.metrics)

    def write(self, name: str, text: str) -> None:
        """Replaces the file in one step, as editors do."""
        beside = self.folder / f".{name}.new"
        beside.write_text(text)
        beside.replace(self.folder / name)

    def domains(self) -> set[str]:
        return set(self.watcher.current())

    def reloads(self, result: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "headgate_ratelimit_config_reloads_total", {"result": result}
        )
        return value or 0.0


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_first_files_are_in_force_at_once(rig: Rig) -> None:
    assert rig.domains() == {"a"}


def test_bad_first_files_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("domain: headgate\n")
    clock = FakeClock()
    with pytest.raises(RlsConfigError):
        RlsConfigWatcher((tmp_path,), clock, Metrics(CollectorRegistry(), clock))


async def test_changed_new_and_removed_files_come_into_force(rig: Rig) -> None:
    rig.write("a.yaml", "domain: b\n")
    assert await rig.watcher.check_once()
    assert rig.domains() == {"b"}

    rig.write("c.yaml", "domain: c\n")
    assert await rig.watcher.check_once()
    assert rig.domains() == {"b", "c"}

    (rig.folder / "a.yaml").unlink()
    assert await rig.watcher.check_once()
    assert rig.domains() == {"c"}
    assert rig.reloads("applied") == 3
    assert not await rig.watcher.check_once()


async def test_a_bad_file_keeps_all_of_the_last_good_ones_and_is_reported_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.write("b.yaml", "domain: b\n")
    rig.write("c.yaml", "domain: a\n")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert not await rig.watcher.check_once()

    assert rig.domains() == {"a"}
    assert rig.reloads("refused") == 1
    assert caplog.messages == [
        "ratelimit configuration refused, the last good one stays in force: "
        f'{rig.folder}/c.yaml:1: domain: the domain "a" is already defined in {rig.folder}/a.yaml;'
        " define each domain in one file",
    ]


async def test_an_emptied_or_vanished_directory_keeps_the_last_good_one(rig: Rig) -> None:
    (rig.folder / "a.yaml").unlink()
    assert not await rig.watcher.check_once()
    rig.folder.rmdir()
    assert not await rig.watcher.check_once()
    assert rig.domains() == {"a"}
    assert rig.reloads("refused") == 2


async def test_a_swapped_symlink_is_a_change_as_kubernetes_makes_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"..{name}").mkdir()
        (tmp_path / f"..{name}" / "config.yaml").write_text(f"domain: {name}\n")
    data, swap = tmp_path / "..data", tmp_path / "..data_tmp"
    data.symlink_to("..one")
    (tmp_path / "config.yaml").symlink_to(Path("..data", "config.yaml"))
    clock = FakeClock((tmp_path / "..one").stat().st_mtime + 1000)
    watcher = RlsConfigWatcher((tmp_path,), clock, Metrics(CollectorRegistry(), clock))
    swap.symlink_to("..two")
    swap.replace(data)

    assert await watcher.check_once()
    assert {"two"} == set(watcher.current())
