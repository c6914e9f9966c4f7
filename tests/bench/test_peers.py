"""The bench against the field: its client, its turns and its place in the document."""

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.peers.measures import WORKS, Turns, able
from bench.peers.processes import LeftOut, Place, Stack, free_port
from bench.peers.report import report, write
from bench.peers.stacks.limitador import limitador


def turns(us: float) -> Turns:
    """A hundred requests that took `us` of Envoy's processor time each."""
    spent = {"envoy": us / 1e6 * 100}
    return Turns(requests=100, used_s=spent, per_s=[10.0], p50_s=[us / 1e3], p99_s=[us / 1e2])


def results(**us: float) -> dict[str, dict[str, Turns]]:
    """Each stack's works, all at the same cost; a long stream has five times as much of it."""
    return {
        name: {work: turns(cost * (5 if work == "long stream" else 1)) for work in WORKS}
        for name, cost in us.items()
    }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder without peers, and nothing started."""
    return Place(ExitStack(), tmp_path, tmp_path, free_port())


def test_costs_are_what_a_stack_takes_above_plain_envoy() -> None:
    text = report(results(plain=100, ours=300, peer=500), {}, 3)
    assert "| ours | 300 |  |  | 200 | 2.00 | 10 |" in text
    assert "| peer | 2.00 | 1.00 |" in text
    assert "| ours | 1.00 | 0.50 |" in text


def test_the_report_says_what_was_left_out_and_why() -> None:
    text = report(results(plain=100), {"limitador": "there is none"}, 3)
    assert text.endswith("- `limitador` is left out: there is none.\n")


def test_a_report_replaces_only_what_is_between_its_markers(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.md"
    begin, end = "<!-- bench-peers: written by the bench -->", "<!-- bench-peers: end -->"
    file.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    write(file, "new\n")
    write(file, "newer\n")
    assert file.read_text() == f"before\n{begin}\n\nnewer\n\n{end}\nafter\n"


def test_a_document_without_the_markers_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.md"
    file.write_text("text\n")
    with pytest.raises(ValueError, match="bench-peers"):
        write(file, "new\n")


def test_the_committed_document_has_the_markers(tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    shutil.copyfile(Path(__file__).parents[2] / "docs" / "benchmarks.md", copy)
    write(copy, "new\n")
    assert "\nnew\n" in copy.read_text()


def test_a_peer_that_is_not_on_this_machine_is_left_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.fspath(place.folder))
    with pytest.raises(LeftOut, match="no limitador-server"):
        limitador(place, "limitador", "memory")


def test_the_canned_vllm_answers_every_kind_of_work(place: Place) -> None:
    with place.ending:
        command = [sys.executable, "-m", "bench.peers.upstream", place.upstream_port]
        place.wait_for(place.upstream_port, place.start(command, "upstream"), "upstream")
        vllm = Stack(name="vllm", port=place.upstream_port, headers={}, pids={"envoy": []})
        left_out: dict[str, str] = {}
        assert able([vllm], left_out) == [vllm]
        assert left_out == {}


def test_a_stack_that_does_not_answer_is_left_out(place: Place) -> None:
    nobody = Stack(name="nobody", port=free_port(), headers={}, pids={"envoy": []})
    left_out: dict[str, str] = {}
    assert able([nobody], left_out) == []
    assert "ConnectionRefusedError" in left_out["nobody"]
