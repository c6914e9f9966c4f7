"""The program: it says when it listens, carries many streams, and ends cleanly."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from headgate.core.errors import OperatorError
from headgate.simulator.__main__ import main
from headgate.simulator.server import running, serve
from headgate.simulator.settings import Settings
from tests.patience import PATIENCE_S
from tests.simulator.metrics_page import read_until, samples_of, value
from tests.simulator.requests_and_events import CHAT, RESPONSES, asking, events_of
from tests.simulator_process import simulator_process

STREAMS = 300
TOKENS = 20


async def test_300_streams_at_once_all_end_with_their_tokens() -> None:
    options = {"include_usage": True}
    body = asking(CHAT, TOKENS, stream=True, stream_options=options)
    limits = httpx.Limits(max_connections=STREAMS)
    arguments = ("--ttft-s", "0.2", "--token-interval-s", "0.02")
    async with (
        simulator_process(*arguments) as process,
        httpx.AsyncClient(base_url=process.url, limits=limits) as client,
    ):
        answers = await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(STREAMS)))
        page = (await client.get("/metrics")).text

    for answer in answers:
        events = events_of(answer.text)
        assert len(events) == 1 + TOKENS + 1 + 1
        assert events[-2][1]["usage"]["completion_tokens"] == TOKENS
    assert value(samples_of(page), "generation_tokens_total") == STREAMS * TOKENS


async def test_the_ready_line_is_said_once_it_listens() -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(serve(Settings(), "127.0.0.1", 0, said.put_nowait))
    line = await asyncio.wait_for(said.get(), PATIENCE_S)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{line.split()[-1]}/health")).status_code == 200
    task.cancel()

    assert line.startswith("simulator ready on http://127.0.0.1:")
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE_S)


async def test_serve_returns_on_sigterm() -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(serve(Settings(), "127.0.0.1", 0, said.put_nowait))
    await asyncio.wait_for(said.get(), PATIENCE_S)

    os.kill(os.getpid(), signal.SIGTERM)

    await asyncio.wait_for(task, PATIENCE_S)


async def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OperatorError, match=rf"cannot listen on 127.0.0.1:{port}: Address"):
            async with running(Settings(), "127.0.0.1", port):
                pass
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "headgate.simulator", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"simulator: the simulator cannot listen on 127.0.0.1:{port}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", [("--port", "65536"), ("--port", "-1"), ("--model", "")])
def test_a_wrong_option_is_a_usage_error(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*wrong])

    assert ended.value.code == 2
    assert f"error: {wrong[0]}: " in capsys.readouterr().err


@pytest.fixture
async def slow() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a simulator process that is told to end while a stream runs."""
    async with (
        simulator_process("--ttft-s", "0", "--token-interval-s", "0.05") as process,
        httpx.AsyncClient(base_url=process.url, headers={"x-pid": str(process.pid)}) as http,
    ):
        yield http


async def test_sigterm_ends_running_streams_with_the_engines_error(
    slow: httpx.AsyncClient,
) -> None:
    text = ""
    body = asking(CHAT, 5000, stream=True, stream_options={"include_usage": True})
    async with asyncio.timeout(PATIENCE_S), slow.stream("POST", CHAT, json=body) as answer:
        async for part in answer.aiter_text():
            if not text:
                os.kill(int(slow.headers["x-pid"]), signal.SIGTERM)
            text += part

    events = events_of(text)
    assert (events[-2][1]["error"]["code"], events[-1][1]) == (500, "[DONE]")
    assert "usage" not in text
    with pytest.raises(httpx.TransportError):
        await slow.get("/health")


async def test_sigterm_cuts_responses_and_answers_500_to_the_rest(slow: httpx.AsyncClient) -> None:
    whole = asyncio.create_task(slow.post(CHAT, json=asking(CHAT, 5000)))
    body = asking(RESPONSES, 5000, stream=True)
    async with asyncio.timeout(PATIENCE_S):
        async with slow.stream("POST", RESPONSES, json=body) as answer:
            await read_until(slow, "num_requests_running", 2)
            os.kill(int(slow.headers["x-pid"]), signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                await answer.aread()
        assert (await whole).status_code == 500


async def test_an_idle_connection_is_closed_after_5_seconds_unless_set_otherwise() -> None:
    assert Settings().keep_alive_s == 5
    async with running(Settings(keep_alive_s=1), "127.0.0.1", 0) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")

        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()
        await writer.wait_closed()


def test_a_simulator_needs_a_name() -> None:
    with pytest.raises(ValueError, match="at least one model name"):
        Settings(models=())


async def test_the_helper_leaves_no_process_behind_also_when_it_was_killed() -> None:
    async with simulator_process() as process:
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
