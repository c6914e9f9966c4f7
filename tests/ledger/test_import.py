"""`headgate ledger import`: old files and pipes, twice without effect, bad lines named."""

import asyncio
import gzip
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from headgate.program.postgres.folder import APPLICATION, OWNER
from tests.ledger.builders import ledger, line, rows, written
from tests.postgres_server import PostgresServer

POLICY = """
currency: EUR
models:
  tiny: {upstream: "http://127.0.0.1:8000", context_tokens: 8192, prices: {input: 0.2, output: 0.6}}
tenants:
  acme: {models: [tiny]}
"""


def run(
    server: PostgresServer, *arguments: object, role: str = APPLICATION, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    url = server.server.folder.url(role, "clean")
    command = [sys.executable, "-m", "headgate", "ledger", *map(str, arguments), "--database", url]
    return subprocess.run(command, input=stdin, capture_output=True)


async def test_a_second_import_of_the_same_files_changes_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    plain = written(tmp_path / "old.jsonl", *(line(number) for number in range(1_500)))
    packed = tmp_path / "old.gz"
    packed.write_bytes(gzip.compress(b"".join(line(number) for number in range(1_000, 2_000))))

    first = run(postgres, "import", plain, packed)
    before = await ledger(postgres)
    second = run(postgres, "import", plain, packed)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert b"2,000 records added, 500 were there already, 0 bad" in first.stdout
    assert b"0 records added, 2,500 were there already, 0 bad" in second.stdout
    assert len(before) == 2_000
    assert await ledger(postgres) == before


async def test_bad_lines_are_named_and_left_out_and_the_exit_code_says_so(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    file = written(tmp_path / "a.jsonl", line(1), b"{torn\n", b"\n", line(2, cost=-1), line(3))

    done = run(postgres, "import", file)

    assert done.returncode == 3
    assert f"{file}:2: is not a usage record" in done.stderr.decode()
    assert f"{file}:4: has the cost -1" in done.stderr.decode()
    assert b"2 records added, 0 were there already, 2 bad lines left out" in done.stdout
    assert await rows(postgres, "select sum(added), sum(bad) from headgate.ingest") == [(2, 2)]


async def test_an_import_adds_the_prices_that_its_records_name(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    policy = tmp_path / "headgate.yaml"
    policy.write_text(POLICY)
    file = written(tmp_path / "a.jsonl", line(1))

    for _ in range(2):
        assert run(postgres, "import", file, "--policy", policy).returncode == 0

    [(currency, prices)] = await rows(postgres, "select currency, prices from headgate.price")
    assert (currency, prices["input"], prices["output"]) == ("EUR", "0.2", "0.6")


async def test_a_pipe_is_imported_while_it_is_still_open(postgres: PostgresServer) -> None:
    postgres.clean_database()
    url = postgres.server.folder.url(APPLICATION, "clean")
    command = [sys.executable, "-m", "headgate", "ledger", "import", "-", "--database", url]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    process.stdin.write(line(1) + line(2)[:20])
    while len(await ledger(postgres)) < 1:
        assert process.returncode is None
    output, _ = await process.communicate(line(2)[20:] + line(3)[:-1])

    assert b"3 records added" in output


def test_a_file_that_is_missing_is_one_line(postgres: PostgresServer, tmp_path: Path) -> None:
    done = run(postgres, "import", tmp_path / "none.jsonl")

    assert done.returncode == 1
    assert done.stderr.decode().startswith("headgate: cannot read usage records of")


def test_broken_gzip_data_is_a_bad_line(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.clean_database()
    file = tmp_path / "broken.gz"
    data = gzip.compress(b"".join(line(number) for number in range(5_000)))
    file.write_bytes(data[: len(data) // 2])

    done = run(postgres, "import", file)

    assert done.returncode == 3
    assert b"gzip data is broken" in done.stderr


async def test_old_months_are_dropped_by_the_owner_alone(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    times = ("2020-01-31T23:59:59Z", "2020-02-01T00:00:00Z", "2098-01-01T00:00:00Z")
    lines = (line(n, time=time, duration_s=0.5) for n, time in enumerate(times))
    assert run(postgres, "import", written(tmp_path / "a", *lines)).returncode == 0

    refused = run(postgres, "expire", "--keep-months", 24)
    done = run(postgres, "expire", "--keep-months", 24, role=OWNER)

    assert refused.returncode == 1
    assert b"must be owner" in refused.stderr
    assert b"dropped 2020-01\ndropped 2020-02\n" in done.stdout
    assert b"2098" not in done.stdout
    assert [row[0] for row in await ledger(postgres)] == ["request-2"]


async def test_addresses_end_earlier_than_the_records_that_had_them(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    lines = (line(n, time=f"{year}-01-31T00:00:00Z") for n, year in enumerate((2020, 2098)))
    assert run(postgres, "import", written(tmp_path / "a", *lines)).returncode == 0
    before = await ledger(postgres)

    expire = ("expire", "--keep-months", 600, "--keep-addresses-months", 3)
    done = run(postgres, *expire, role=OWNER)

    assert b"cleared the addresses of 1 records before" in done.stdout
    assert await ledger(postgres) == before
    kept = "select ip is null, user_agent is null from headgate.usage_record order by ended_at"
    assert await rows(postgres, kept) == [(True, True), (False, False)]


@pytest.mark.parametrize(
    "query",
    [
        "update headgate.usage_record set cost_nanos = 0",
        "delete from headgate.usage_record",
        "truncate headgate.usage_record",
        "drop table headgate.usage_record",
        "update headgate.price set currency = 'X'",
        "delete from headgate.ingest",
    ],
)
async def test_the_services_cannot_change_what_was_added(
    postgres: PostgresServer, query: str
) -> None:
    postgres.clean_database()

    with pytest.raises(Exception, match=r"permission denied|must be owner"):
        await rows(postgres, query)
