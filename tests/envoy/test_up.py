"""`headgate up` as a newcomer meets it: what it prints, how it fails, what it leaves behind."""

import http.server
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.box import Box, environment, policy, started_up
from tests.certificates import AUTHORITY, FOLDER
from tests.patience import PATIENCE_S, PATIENT_HEADGATE, wait_until
from tests.ports import free_port

ANY_PORTS = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
FROZEN_HEADGATE = (sys.executable, "-m", "tests.frozen_clock")
"""The limit of the demo's first key is a calendar minute's: here that minute does not end."""
_CLOSED_OUTPUT = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, children ignore it
os.close(1)
os.execv(sys.argv[1], sys.argv[1:])
"""


def children_of(pid: int) -> list[int]:
    """Process ids of the direct children of a process."""
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in out.stdout.split()]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def run_up(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a `headgate up` that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "headgate", "up", *options],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=PATIENCE_S,
        env=environment(),
    )


def test_the_demo_prints_keys_a_curl_line_and_a_line_for_each_request(tmp_path: Path) -> None:
    with started_up(tmp_path, "--demo") as box:
        keys = [word for line in box.lines for word in line.split() if word.startswith("sk-")]
        curl = next(line for line in box.lines if line.strip().startswith("curl "))
        shown = subprocess.run(["sh", "-c", f"{curl} -s"], capture_output=True, text=True)

        log = tmp_path / "up.log"
        line = wait_until(
            lambda: next((li for li in log.read_text().splitlines() if " 200 " in li), None),
            "the line of the request",
        )

    assert "is ready on" in box.lines[0], "nothing comes before it"
    assert len(keys) >= 2
    assert '"chat.completion"' in shown.stdout
    assert "demo/" in line
    assert "left" in line


def test_the_first_key_of_the_demo_meets_its_limit_within_a_hundred_requests(
    tmp_path: Path,
) -> None:
    with started_up(tmp_path, "--demo", program=FROZEN_HEADGATE) as box:
        key = next(word for line in box.lines for word in line.split() if word.startswith("sk-"))
        body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
        with httpx.Client(headers={"authorization": f"Bearer {key}"}) as client:
            url = f"{box.url}/v1/chat/completions"
            codes = [client.post(url, json=body).status_code for _ in range(101)]

    assert codes == [200] * 100 + [429]


def test_ctrl_c_ends_every_process_with_exit_code_0(tmp_path: Path) -> None:
    with started_up(tmp_path, "--demo") as box:
        children = children_of(box.process.pid)
        code = box.stop()

    assert len(children) == 2
    assert code == 0
    assert not any(alive(pid) for pid in children)


def test_killed_with_9_it_leaves_no_process_behind(tmp_path: Path) -> None:
    with started_up(tmp_path, "--demo") as box:
        children = children_of(box.process.pid)
        box.process.kill()
        box.process.wait()

        assert children
        wait_until(lambda: not any(alive(pid) for pid in children), "the children to end")


@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_a_taken_port_is_one_line_and_leaves_nothing(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", option: f"127.0.0.1:{port}"}
        options = [word for pair in ports.items() for word in pair]
        ended = run_up(tmp_path, "--demo", *options)

    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert str(port) in ended.stderr
    assert ended.stdout == ""


def test_a_dying_envoy_ends_everything_with_one_line(tmp_path: Path) -> None:
    with started_up(tmp_path, "--demo") as box:
        children = children_of(box.process.pid)
        envoy = next(pid for pid in children if "envoy" in command_of(pid))
        os.kill(envoy, signal.SIGKILL)
        code = box.process.wait(PATIENCE_S)

    assert code == 1
    assert "Envoy" in (tmp_path / "up.log").read_text().splitlines()[-1]
    assert not any(alive(pid) for pid in children)


def test_the_demo_goes_on_without_its_simulator_and_says_so(tmp_path: Path) -> None:
    with started_up(tmp_path, "--demo") as box:
        children = children_of(box.process.pid)
        simulator = next(pid for pid in children if "simulator" in command_of(pid))
        assert f"The vLLM here is a simulator, process {simulator}" in box.lines
        os.kill(simulator, signal.SIGKILL)
        log = tmp_path / "up.log"
        wait_until(lambda: "the simulator ended with exit code -9" in log.read_text(), "the line")
        key = next(line.split()[0] for line in box.lines if line.strip().startswith("sk-"))
        answer = box.chat_with_headers({"authorization": f"Bearer {key}"})
        code = box.stop()

    assert (answer.status_code, code) == (503, 0)
    assert log.read_text().count("simulator ended") == 1
    assert not any(alive(pid) for pid in children)


def test_a_missing_policy_is_said_with_what_to_do(tmp_path: Path) -> None:
    ended = run_up(tmp_path, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")

    assert ended.returncode == 1
    assert "headgate.yaml" in ended.stderr
    assert "--demo" in ended.stderr


def test_a_bad_policy_is_said_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("models: {}\ntenantz: {}\n")
    ended = run_up(
        tmp_path, "--policy", "bad.yaml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"
    )

    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert any("tenantz" in line for line in lines)
    assert all(line.startswith("bad.yaml:") for line in lines)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--upstream", "localhost:8000", "is not the URL of a server"),
        ("--upstream", "http://127.0.0.1:8000/v1", "ends in /v1"),
        ("--run-dir", "headgate.yaml/run", "cannot use"),
        ("--run-dir", "long" * 40, "too long for a socket"),
        ("--store", "mysql://127.0.0.1", "the store must be"),
        ("--store", "redis:127.0.0.1", "the store must be `memory`, redis://HOST:PORT/DB"),
        ("--store-password-file", "headgate.yaml", "goes with a --store that is a Redis"),
        ("--upstream-ca", "headgate.yaml", "holds no certificate in PEM"),
        ("--records", "nowhere/usage.jsonl", "cannot write usage records"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    start = ["--policy", "headgate.yaml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    ended = run_up(tmp_path, *start, option, value)

    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("headgate: ")
    assert said in line


def test_a_demo_that_cannot_start_says_only_why(tmp_path: Path) -> None:
    ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    ended = run_up(tmp_path, "--demo", *ports, "--records", "nowhere/usage.jsonl")

    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "cannot write usage records to nowhere/usage.jsonl" in line


def test_a_folder_that_cannot_hold_sockets_is_one_line_that_names_the_option(
    tmp_path: Path,
) -> None:
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "x", tmp_path / ("d" * 100)):
        ended = run_up(tmp_path, *ANY_PORTS, "--run-dir", str(folder))

        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1
        assert "--run-dir" in ended.stderr


def test_a_folder_that_others_can_enter_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run").chmod(0o710)
    ended = run_up(tmp_path, *ANY_PORTS, "--run-dir", "run")

    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "is open to other users (mode 710)" in line
    assert "chmod 700" in line


def test_a_second_box_in_the_same_folder_is_refused_and_hurts_nobody(tmp_path: Path) -> None:
    """It would take over the first one's sockets, and remove them at its end."""
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    with started_up(tmp_path) as box:
        second = run_up(tmp_path, *ANY_PORTS, "--run-dir", str(tmp_path / "run"))
        models = httpx.get(f"{box.url}/v1/models", headers=box.headers())

    assert second.returncode == 1
    assert "another headgate runs" in second.stderr
    assert models.status_code == 200


def test_a_host_name_to_listen_on_works_and_nothing_else_is_printed(tmp_path: Path) -> None:
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    with started_up(tmp_path, "--listen", "localhost:0") as box:
        assert httpx.get(f"{box.url}/v1/models").status_code == 401
        lines = (tmp_path / "up.log").read_text().splitlines()

    note, ready, metrics = [line for line in lines if " 401 " not in line]
    assert note.startswith("note: the vLLM of tiny")
    assert ready.startswith("Headgate is ready on")
    assert metrics.startswith(f"Metrics: {box.admin_url}/metrics")


def test_the_admin_port_shows_the_metrics_of_envoy(box: Box) -> None:
    box.chat()
    answer = httpx.get(f"{box.admin_url}/stats/prometheus")

    assert answer.status_code == 200
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "envoy_http_downstream_rq_active" in names


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="hg-") as folder:
        yield Path(folder)


def test_the_log_of_an_envoy_that_crashed_is_kept_and_named(short_path: Path) -> None:
    """A temporary folder is removed at the end, and the certificate's key with it."""
    (short_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    said, errors = short_path / "out", short_path / "errors"
    with said.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [*PATIENT_HEADGATE, "up", *ANY_PORTS],
            cwd=short_path,
            stdout=out,
            stderr=err,
            env={**environment(), "TMPDIR": str(short_path)},
        )
    try:
        wait_until(lambda: "Metrics: " in said.read_text(), "the box")
        (envoy,) = children_of(process.pid)
        os.kill(envoy, signal.SIGSEGV)
        code = process.wait(PATIENCE_S)
    finally:
        process.kill()

    (log,) = short_path.glob("headgate-*/*")
    assert code == 1
    assert "Segmentation fault" in log.read_text()
    assert errors.read_text().splitlines()[-1].endswith(f"; its log is {log}")


def test_a_closed_standard_output_does_not_end_it_and_a_closed_terminal_does(
    tmp_path: Path,
) -> None:
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    port = free_port()
    command = [*PATIENT_HEADGATE, "up", "--listen", f"127.0.0.1:{port}"]
    command += ["--admin", "127.0.0.1:0", "--run-dir", "run"]
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _CLOSED_OUTPUT, *command],
        cwd=tmp_path,
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/v1/models"), "the door")
        process.send_signal(signal.SIGHUP)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(controller)
        os.close(terminal)


def answers(url: str) -> bool:
    """Whether anybody answers there."""
    try:
        return httpx.get(url).status_code == 401
    except httpx.HTTPError:
        return False


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_a_changed_policy_is_in_force_without_a_restart(box: Box, tmp_path: Path) -> None:
    """A key taken out of the file is refused; a bad file keeps the last good one."""
    path = box.folder / "headgate.yaml"
    good = path.read_text()
    try:
        path.write_text(good.replace("user: bob", "user: bert"))
        answer = wait_until(
            lambda: (
                answer
                if (answer := box.chat("bob")).status_code == 200
                and box.record_of(answer.headers["x-request-id"])["user"] == "bert"
                else None
            ),
            "the new user name",
        )
        path.write_text(good.replace("models:", "modelz:"))
        wait_until(lambda: 'policy_reloads_total{result="refused"} 1.0' in box.metrics(), "refusal")
        assert box.chat("bob").status_code == 200
        assert box.record_of(answer.headers["x-request-id"])["user"] == "bert"
    finally:
        path.write_text(good)


def test_a_new_upstream_is_in_force_without_a_restart(box: Box) -> None:
    path = box.folder / "headgate.yaml"
    good = path.read_text()
    try:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        lines = [f"    upstream: {dead}" if "upstream:" in li else li for li in good.splitlines()]
        path.write_text("\n".join(lines))
        answer = wait_until(
            lambda: a if (a := box.chat()).status_code == 503 else None, "the dead upstream"
        )
        assert answer.json()["error"]["message"]
        assert answer.headers["retry-after"]
    finally:
        path.write_text(good)
    wait_until(lambda: box.chat().status_code == 200, "the old upstream")


def test_a_policy_with_no_upstream_alive_still_starts(tmp_path: Path) -> None:
    """The vLLM may come later: clients get a 503 in their shape until then."""
    (tmp_path / "headgate.yaml").write_text(policy("http://127.0.0.1:9"))
    with started_up(tmp_path, "--policy", str(tmp_path / "headgate.yaml")) as box:
        answer = box.chat()

    assert "note: the vLLM of tiny (http://127.0.0.1:9) does not answer yet" in box.lines
    assert answer.status_code == 503
    assert answer.json()["error"]["code"]


@contextmanager
def https_upstream() -> Iterator[str]:
    """A server that answers 204, with a certificate of the tests' own authority."""

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(204)
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the names are the library's

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "first.pem", FOLDER / "first.key.pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_upstream_of_an_own_authority_is_told_and_upstream_ca_trusts_it(tmp_path: Path) -> None:
    with https_upstream() as url:
        (tmp_path / "headgate.yaml").write_text(policy(url, forces_usage=True))
        with started_up(tmp_path) as box:
            assert box.chat().status_code == 503
            note = box.lines[0]
        with started_up(tmp_path, "--upstream-ca", str(AUTHORITY)) as box:
            assert box.chat().status_code == 204
            assert "is ready on" in box.lines[0]

    assert note.startswith(f"note: the vLLM of tiny ({url}) has a certificate that is not trusted")
    assert "--upstream-ca FILE" in note
