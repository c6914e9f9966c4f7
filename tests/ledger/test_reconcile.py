"""The ledger beside vLLM's counters: restarts, choices, aborts, and traffic past the gateway."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headgate.database.connection import connected
from headgate.ledger.engine_counters import EngineTokens, growth
from headgate.ledger.reconcile import Compared, LedgerTokens
from headgate.ledger.reconciled import keep_statement, reconciled_within
from headgate.program.postgres.folder import APPLICATION
from tests.ledger.builders import line, written
from tests.postgres_server import PostgresServer

POD = "10.1.0.1:8000"
TIMES = ("--from", "2026-10-01T00:00:00Z", "--to", "2026-11-01T00:00:00Z")
END_S = 1793491200.0
NOW = datetime(2026, 11, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(90, 100), (110, 130), (120, 150)], 50),
        ([(80, 40), (90, 100), (100, 105), (110, 130)], 25),
        ([(110, 30), (120, 50)], 50),  # a new pod
        ([(90, 100), (110, 130), (120, 20), (130, 25)], 55),  # a restart
        ([(90, 100)], 0),
    ],
)
def test_a_counter_grows_from_its_value_at_the_begin_and_from_0_after_a_restart(
    samples: list[tuple[float, float]], expected: int
) -> None:
    assert growth(samples, 100) == expected


Samples = dict[str, list[tuple[float, float]]]


def of_tokens(prompt: int, completion: int) -> Samples:
    """Two samples of each counter that a reconciliation reads."""
    values = {"prompt_tokens_total": prompt, "generation_tokens_total": completion}
    return {name: [(END_S - 60, one // 2), (END_S, one)] for name, one in values.items()}


@contextmanager
def prometheus(counters: Samples) -> Iterator[str]:
    """An API that has samples of these counters of one pod."""

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"]))
            samples = next(one for name, one in counters.items() if name.encode() in asked)
            values = [[at_s, str(value)] for at_s, value in samples]
            series = {"metric": {"instance": POD, "model_name": "tiny"}, "values": values}
            body = json.dumps({"status": "success", "data": {"result": [series]}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run(server: PostgresServer, *arguments: object) -> subprocess.CompletedProcess[str]:
    url = server.server.folder.url(APPLICATION, "clean")
    command = [sys.executable, "-m", "headgate", "ledger", *map(str, arguments), "--database", url]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("prompt", "completion", "numbers", "code"),
    [
        (70, 25, ["70", "70", "25", "25", "0", "0", "0"], 0),  # all of it, a prompt for each choice
        (80, 25, ["80", "70", "25", "25", "10", "10", "0"], 0),  # an abort may be that much
        (170, 25, ["170", "70", "25", "25", "100", "30", "70"], 3),  # traffic past the gateway
        (20, 25, ["20", "70", "25", "25", "-50", "30", "20"], 3),  # billed, and never worked on
    ],
)
def test_the_statement_has_both_accounts_and_what_explains_their_difference(
    postgres: PostgresServer,
    tmp_path: Path,
    prompt: int,
    completion: int,
    numbers: list[str],
    code: int,
) -> None:
    postgres.clean_database()
    lines = (
        line(1, prompt_tokens=10, completion_tokens=5),
        line(2, prompt_tokens=20, completion_tokens=20, choices=3),
        line(3, prompt_tokens=0, completion_tokens=0, source="refund", ended="client_left"),
        line(4, pod=None, prompt_tokens=0, completion_tokens=0, status=429),
        line(5, time="2026-09-30T23:59:00Z"),
    )
    assert run(postgres, "import", written(tmp_path / "a", *lines)).returncode == 0

    with prometheus(of_tokens(prompt, completion)) as url:
        file = tmp_path / "reconciled.prom"
        done = run(postgres, "reconcile", *TIMES, "--prometheus", url, "--metrics-file", file)

    labels = f'{{model="tiny",pod="{POD}"}}'
    assert f"headgate_unexplained_tokens{labels} {numbers[-1]}.0\n" in file.read_text()
    assert done.stdout.splitlines()[1].split() == [POD, "tiny", *numbers]
    assert done.returncode == code, done.stderr
    assert ("unexplained above the bound: 10.1.0.1:8000" in done.stderr) is (code == 3)


def test_a_kept_statement_takes_the_place_of_the_same_span_and_overlaps_no_other(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.clean_database()
    assert run(postgres, "import", written(tmp_path / "a", line(1))).returncode == 0
    with prometheus(of_tokens(10, 10)) as url:
        for _ in range(2):
            done = run(postgres, "reconcile", *TIMES, "--prometheus", url, "--keep")
            assert done.returncode in (0, 3), done.stderr
        other = ("--from", "2026-10-31T23:00:00Z", "--to", "2026-11-01T01:00:00Z")
        refused = run(postgres, "reconcile", *other, "--prometheus", url, "--keep")

    count = (
        "select count(*) from headgate.reconciliation join headgate.reconciled_pod using (begin_at)"
    )
    assert postgres.run_as(APPLICATION, "clean", count) == [(1,)]
    assert refused.returncode == 1
    assert refused.stderr.startswith("headgate: a kept statement overlaps 2026-10-31T23:00Z")


async def test_kept_statements_of_a_month_add_up_by_pod(postgres: PostgresServer) -> None:
    address = postgres.address(postgres.clean_database())
    begin = datetime(2026, 10, 1, tzinfo=UTC)
    hour = timedelta(hours=1)
    async with connected(address) as connection:
        for at in range(3):
            lines = [
                Compared(
                    pod=pod,
                    engine=EngineTokens(model="tiny" if at else "", prompt=10, completion=at),
                    ledger=LedgerTokens(requests=1, prompt=9, completion=at, unsure=1),
                )
                for pod in (POD, "10.1.0.2:8000")[: at + 1]
            ]
            await keep_statement(
                connection, (begin + at * hour, begin + (at + 1) * hour), NOW, lines
            )
        found = await reconciled_within(connection, begin + hour, begin + 7 * hour)

    assert (found.covered, found.compared_at) == (2 * hour, NOW)
    assert [(one.pod, one.engine.model, one.engine_tokens) for one in found.lines] == [
        (POD, "tiny", 23),
        ("10.1.0.2:8000", "tiny", 23),
    ]
    assert {(one.difference, one.explained, one.unexplained) for one in found.lines} == {(2, 2, 0)}


def test_a_prometheus_that_is_away_is_one_line(postgres: PostgresServer) -> None:
    done = run(postgres, "reconcile", *TIMES, "--prometheus", "http://127.0.0.1:1")

    assert done.returncode == 1
    assert done.stderr.startswith("headgate: --prometheus http://127.0.0.1:1: cannot be asked")
