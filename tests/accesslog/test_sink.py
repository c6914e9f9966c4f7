"""Usage records reach the file as whole lines, even if the process dies or the disk is full."""

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from accesslog.meter import meter
from accesslog.sink import JsonLinesSink
from accesslog.types import UsageRecord
from headgate.core.errors import OperatorError
from tests.accesslog.entries import entry, prices_of


def record(request_id: str) -> UsageRecord:
    finished = meter(entry(request_id=request_id), prices_of)
    assert finished is not None
    return finished.record


def ids(path: Path) -> list[str]:
    return [json.loads(line)["request_id"] for line in path.read_text().splitlines()]


async def test_each_record_is_one_line_in_order(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    with JsonLinesSink.open(path) as sink:
        await sink.write([record("a"), record("b")])
        await sink.write([])
        await sink.write([record("c")])
    assert ids(path) == ["a", "b", "c"]


async def test_money_is_an_exact_number(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    with JsonLinesSink.open(path) as sink:
        await sink.write([record("a")])
    assert json.loads(path.read_text(), parse_float=Decimal)["cost"] == Decimal("0.0000396")


async def test_a_line_break_of_a_client_is_no_line_break_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    with JsonLinesSink.open(path) as sink:
        await sink.write([record('x\n{"request_id": "forged"}\r\n\u2028')])
    assert path.read_bytes().count(b"\n") == 1
    assert json.loads(path.read_bytes())["request_id"].startswith("x\n{")


async def test_a_slow_disk_holds_no_other_task() -> None:
    """A pipe that nobody reads is as slow as a disk can be."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as lines, JsonLinesSink(write) as sink:
        many = [record("x" * 1000) for _ in range(200)]  # more than a pipe holds
        writing = asyncio.create_task(sink.write(many))
        await asyncio.sleep(0.05)
        assert not writing.done()
        read_bytes = 0
        while not writing.done():
            read_bytes += len(await asyncio.to_thread(os.read, lines.fileno(), 2**16))
        await writing
        assert read_bytes > 2**16


async def test_a_new_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    for name in ("a", "b"):
        with JsonLinesSink.open(path) as sink:
            await sink.write([record(name)])
    assert ids(path) == ["a", "b"]


@pytest.mark.parametrize("how", ["renamed", "deleted"])
async def test_a_file_that_was_taken_away_is_made_anew(tmp_path: Path, how: str) -> None:
    path, old = tmp_path / "usage.jsonl", tmp_path / "usage.jsonl.1"
    with JsonLinesSink.open(path) as sink:
        await sink.write([record("a")])
        path.rename(old)
        if how == "deleted":
            old.unlink()
        await sink.write([record("b")])
        await sink.write([record("c")])
    assert ids(path) == ["b", "c"]
    assert how == "deleted" or ids(old) == ["a"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_folder_that_was_taken_away_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    path = folder / "usage.jsonl"
    with JsonLinesSink.open(path) as sink:
        shutil.rmtree(folder)
        with pytest.raises(FileNotFoundError):
            await sink.write([record("a")])
        folder.mkdir()
        await sink.write([record("b")])
    assert ids(path) == ["b"]


async def test_a_batch_is_one_write(tmp_path: Path) -> None:
    """Two sinks on one file never mix their lines, because O_APPEND writes whole batches."""
    path = tmp_path / "usage.jsonl"
    with JsonLinesSink.open(path) as first, JsonLinesSink.open(path) as second:
        for number in range(20):
            await first.write([record(f"first-{number}-{n}") for n in range(50)])
            await second.write([record(f"second-{number}")])
    assert len(ids(path)) == 20 * 51


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    JsonLinesSink.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_line_torn_by_a_power_cut_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    path.write_text('{"request_id": "to')
    with JsonLinesSink.open(path) as sink:
        await sink.write([record("a")])
    torn, whole = path.read_text().splitlines()
    assert torn == '{"request_id": "to'
    assert json.loads(whole)["request_id"] == "a"


async def test_a_full_disk_is_an_error_and_the_next_batch_is_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    with JsonLinesSink.open(path) as sink:
        await sink.write([record("a")])
        room = path.stat().st_size + 100
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(OSError):
                await sink.write([record("b")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.stat().st_size == room
        await sink.write([record("c")])
    first, torn, last = path.read_text().splitlines()
    assert len(torn) == 100
    assert [json.loads(line)["request_id"] for line in (first, last)] == ["a", "c"]


@pytest.mark.parametrize("name", ["", "missing/usage.jsonl"])
def test_a_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(OperatorError, match="cannot write usage records to"):
        JsonLinesSink.open(path)


async def test_without_a_file_the_lines_go_to_standard_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as lines:
        with os.fdopen(write, "w") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            with JsonLinesSink.open(None) as sink:
                await sink.write([record("a")])
        assert json.loads(lines.read())["request_id"] == "a"


WRITER = """
import asyncio, sys
from pathlib import Path
from accesslog.meter import meter
from accesslog.sink import JsonLinesSink
from tests.accesslog.entries import entry, prices_of

async def main():
    sink = JsonLinesSink.open(Path(sys.argv[1]))
    batch = [meter(entry(request_id=str(n)), prices_of).record for n in range(200)]
    await sink.write(batch)
    print("writing", flush=True)
    while True:
        await sink.write(batch)

asyncio.run(main())
"""


def test_a_killed_process_tears_its_last_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"writing\n"
        finally:
            process.send_signal(signal.SIGKILL)
    *lines, last = path.read_bytes().split(b"\n")
    with JsonLinesSink.open(path) as sink:
        asyncio.run(sink.write([record("next")]))

    assert [json.loads(line)["request_id"] for line in lines] == [
        str(number % 200) for number in range(len(lines))
    ]
    after = path.read_bytes().split(b"\n")[len(lines) + bool(last) :]
    assert [json.loads(line)["request_id"] for line in after if line] == ["next"]
