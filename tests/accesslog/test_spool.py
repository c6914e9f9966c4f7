"""The spool on disk: bounded, and honest about what it did not take."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from accesslog.spool import Segment, SpoolSink, SpoolWriter, segments_of, size_bytes
from headgate.core.errors import OperatorError

LINES = b"one\ntwo\nthree\n"


def content(folder: Path) -> bytes:
    return b"".join((folder / one.file_name).read_bytes() for one in segments_of(folder))


def test_a_stream_goes_on_in_the_next_segment_without_a_gap(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 1_000, segment_bytes=20)

    assert [writer.append(LINES) for _ in range(4)] == [0, 0, 0, 0]

    assert [one.number for one in segments_of(tmp_path)] == [1, 2]
    assert content(tmp_path) == 4 * LINES
    writer.close()


def test_no_reader_sees_a_segment_before_its_writer_has_locked_it(tmp_path: Path) -> None:
    """It would find no lock, take the segment for ended and remove it under its writer."""
    seen: list[list[int]] = []

    def locked(descriptor: int, operation: int) -> None:
        seen.append([one.number for one in segments_of(tmp_path)])

    with patch("accesslog.spool.fcntl.flock", locked):
        writer = SpoolWriter(tmp_path, 1_000, segment_bytes=10)
        assert [writer.append(LINES) for _ in range(2)] == [0, 0]

    assert seen == [[], [1]]
    writer.close()


def test_a_full_spool_takes_nothing_more_and_says_how_many_lines_that_were(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 30, segment_bytes=10)
    assert writer.append(LINES) == 0
    assert writer.append(LINES) == 0

    assert writer.append(LINES) == 3
    (tmp_path / segments_of(tmp_path)[0].file_name).unlink()
    assert writer.append(LINES) == 0
    writer.close()


def test_two_writers_share_the_limit(tmp_path: Path) -> None:
    one, two = SpoolWriter(tmp_path, 20), SpoolWriter(tmp_path, 20)
    assert one.append(LINES) == 0

    assert two.append(LINES) == 3
    assert size_bytes(tmp_path) == len(LINES)
    one.close()
    two.close()


@pytest.mark.parametrize(("room", "lost"), [(0, 3), (2, 3), (4, 2), (6, 2), (9, 1)])
def test_a_full_disk_loses_the_lines_that_it_did_not_take_whole(
    tmp_path: Path, room: int, lost: int
) -> None:
    writer = SpoolWriter(tmp_path, 1_000)
    left, real = [room], os.write

    def write(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[: left[0]])
        left[0] -= written
        return written

    with patch("os.write", write):
        assert writer.append(LINES) == lost
        assert writer.append(LINES) == 3
    assert writer.append(LINES) == 0

    whole = [one for one in content(tmp_path).split(b"\n") if one in LINES.split(b"\n") and one]
    assert len(whole) == 3 - lost + 3
    writer.close()


def test_other_files_in_the_folder_are_no_segments(tmp_path: Path) -> None:
    for name in (".a-00000001.jsonl", "a.jsonl", "a-1.txt", "notes"):
        (tmp_path / name).touch()
    (tmp_path / ".a-00000001.jsonl").rename(tmp_path / "b-00000002.jsonl")

    assert segments_of(tmp_path) == [Segment("b", 2)]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OperatorError, match="cannot write the spool"):
        SpoolSink.open(tmp_path / "file", 1_000, lambda _: None)
