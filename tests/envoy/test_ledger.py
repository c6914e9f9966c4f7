"""The ledger of a real box: its report as a program prints it, and its tokens beside vLLM's own."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from headgate.program.postgres.folder import APPLICATION, DatabaseFolder
from tests.box import Box, metric, policy, running_box, small_chat
from tests.envoy.conftest import Upstream
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port
from tests.postgres_server import temporary_folder

ADDED = 'headgate_ledger_records_total{outcome="added"}'


@dataclass
class Site:
    """A box with a ledger and an API, and the command line beside it."""

    box: Box
    api: tuple[str, ...]
    database: str
    sent: int = 0

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headgate", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    def chat(self, **fields: object) -> None:
        answer = self.box.chat(**fields)
        assert answer.status_code == 200, answer.text
        self.sent += 1

    def leave_a_stream(self) -> None:
        """A client that leaves after the first chunk of a long answer."""
        body = {**small_chat(), "stream": True, "max_tokens": 500, "ignore_eos": True}
        url, headers = f"{self.box.url}/v1/chat/completions", self.box.headers()
        with httpx.stream("POST", url, json=body, headers=headers) as answer:
            next(answer.iter_lines())
        self.sent += 1

    def wait_until_added(self) -> None:
        wait_until(lambda: metric(self.box.metrics(), ADDED) >= self.sent, "all records")


@pytest.fixture(scope="module")
def site(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with temporary_folder() as folder:
        home = tmp_path_factory.mktemp("ledger")
        port, token = free_port(), home / "operator-token"
        options = (
            *("--database-dir", str(folder / "db"), "--api", f"127.0.0.1:{port}"),
            *("--operator-token-file", str(token)),
        )
        with running_box(home, policy(upstream.url, more="currency: EUR"), *options) as box:
            api = ("--api", f"http://127.0.0.1:{port}", "--token-file", str(token))
            database = DatabaseFolder(folder / "db", None).url(APPLICATION)
            yield Site(box, api, database)


def test_the_report_of_a_live_box_has_what_was_just_used(site: Site) -> None:
    site.chat()
    site.chat(n=2, temperature=1)
    site.wait_until_added()
    month = f"{datetime.now(UTC):%Y-%m}"

    shown = site.run("report", "month", month, "--by", "user", *site.api)
    document = site.run("report", "month", month, "--format", "json", *site.api)

    assert shown.returncode == 0, shown.stderr
    assert "alice" in shown.stdout
    assert "EUR" in shown.stdout
    lines = json.loads(document.stdout)["lines"]
    records = [one for one in site.box.records() if one["status"] == 200]
    assert sum(line["usage"]["requests"] for line in lines) == len(records)
    cost = sum(line["usage"]["cost_nanos"] for line in lines)
    assert cost == round(sum(one["cost"] for one in records) * 10**9) > 0


def test_both_accounts_agree_until_somebody_goes_past_the_gateway(
    site: Site, upstream: Upstream
) -> None:
    with prometheus(upstream) as scraped:
        site.chat()
        site.chat(n=3, temperature=1)
        site.chat(stream=True)
        site.wait_until_added()
        scraped.look_until_quiet()
        assert statement(site, scraped)[-3:] == ["0", "0", "0"]

        site.leave_a_stream()
        site.wait_until_added()
        scraped.look_until_quiet()
        difference, explained, unexplained = map(int, statement(site, scraped)[-3:])
        assert (abs(difference), unexplained) == (explained, 0)

        for _ in range(20):
            httpx.post(
                f"{upstream.url}/v1/chat/completions", json={**small_chat(), "max_tokens": 50}
            )
        scraped.look_until_quiet()
        assert int(statement(site, scraped, code=3)[-1]) > 0


def statement(site: Site, scraped: "Scraped", code: int = 0) -> list[str]:
    """The cells of the pod's line; the command ends with this code."""
    times = (scraped.begin, datetime.now(UTC) + timedelta(seconds=2))
    words = [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in times]
    done = site.run(
        *("ledger", "reconcile", "--from", words[0], "--to", words[1]),
        *("--prometheus", scraped.url, "--database", site.database),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.splitlines()[1].split()


@dataclass
class Scraped:
    """Two scrapes of the upstream: the one at the begin, and the newest."""

    upstream: Upstream
    begin: datetime
    first: dict[str, int]
    last: dict[str, int]
    url: str = ""

    def look_until_quiet(self) -> None:
        """Scrapes until the counters have stopped: an engine counts after it has answered."""

        def is_quiet() -> bool:
            before = self.upstream.counters()
            time.sleep(0.5)
            self.last = self.upstream.counters()
            return before == self.last

        wait_until(is_quiet, "quiet counters")

    def answer(self, query: str) -> dict[str, object]:
        kind = "prompt" if "prompt" in query else "generation"
        begin_s = self.begin.timestamp()
        values = [[begin_s - 1, str(self.first[kind])], [begin_s + 1, str(self.last[kind])]]
        labels = {"instance": urlsplit(self.upstream.url).netloc, "model_name": "tiny"}
        return {"status": "success", "data": {"result": [{"metric": labels, "values": values}]}}


@contextmanager
def prometheus(upstream: Upstream) -> Iterator[Scraped]:
    """An API as Prometheus has it, with what was scraped. No request may have just ended."""
    now = upstream.counters()
    scraped = Scraped(upstream, datetime.now(UTC).replace(microsecond=0), now, now)
    wait_until(lambda: datetime.now(UTC) >= scraped.begin + timedelta(seconds=1), "a new second")
    scraped.begin += timedelta(seconds=1)

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"])).decode()
            body = json.dumps(scraped.answer(parse_qs(asked)["query"][0])).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        scraped.url = f"http://127.0.0.1:{server.server_port}"
        yield scraped
    finally:
        server.shutdown()
        server.server_close()
