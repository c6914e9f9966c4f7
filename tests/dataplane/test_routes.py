"""Models are added, moved and removed while Envoy runs, and their requests follow."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import certifi
import httpx
import pytest

from headgate.core.contract import Header
from headgate.dataplane.box import OneBox, replace_file
from headgate.dataplane.supervisor import EnvoyRejected
from headgate.dataplane.upstream import BadUpstream
from tests.envoy_process import CHAT, Rig
from tests.fake_hooks import MODEL, route
from tests.fake_upstream import Received, Upstream, reply
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "org/other model"


@asynccontextmanager
async def another_upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    upstream.answer = reply(200, b'"other"')
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


class Stepwise:
    """An upstream answer in two parts; the second waits for `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 11\r\n\r\nfirst")
        await self.go.wait()
        writer.write(b"second")
        await writer.drain()


async def test_a_new_model_is_served_without_a_restart(rig: Rig) -> None:
    async with another_upstream() as other:
        await rig.envoy.apply({MODEL: rig.upstream.url, OTHER: other.url})
        rig.services.process = route(headers={Header.BASE: OTHER})
        assert (await rig.post()).text == '"other"'
        rig.services.process = route()
        assert (await rig.post()).text == "{}"


@pytest.mark.parametrize("change", ["none", "added", "moved", "gone"])
async def test_a_stream_in_flight_survives_a_change(rig: Rig, change: str) -> None:
    async with another_upstream() as other:
        await rig.envoy.apply({MODEL: rig.upstream.url})
        rig.upstream.answer = stepwise = Stepwise()
        async with rig.client.stream("POST", CHAT, content=b"{}") as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b"first"
            await rig.envoy.apply(
                {
                    "none": {MODEL: rig.upstream.url},
                    "added": {MODEL: rig.upstream.url, OTHER: other.url},
                    "moved": {MODEL: other.url},
                    "gone": {OTHER: other.url},
                }[change]
            )
            stepwise.go.set()
            assert b"".join([part async for part in parts]) == b"second"
        rig.upstream.answer = reply(200, b"{}")
        await rig.envoy.apply({MODEL: rig.upstream.url})


async def test_a_model_that_moved_is_served_at_its_new_place(rig: Rig) -> None:
    async with another_upstream() as other:
        await rig.envoy.apply({MODEL: other.url})
        assert (await rig.post()).text == '"other"'
    await rig.envoy.apply({MODEL: rig.upstream.url})
    assert (await rig.post()).text == "{}"


async def test_a_model_that_is_gone_has_no_route(rig: Rig) -> None:
    await rig.envoy.apply({})
    assert (await rig.post()).status_code == 404
    await rig.envoy.apply({MODEL: rig.upstream.url})


async def test_a_bad_url_leaves_the_routes_as_they_are(rig: Rig) -> None:
    with pytest.raises(BadUpstream):
        await rig.envoy.apply({MODEL: "nowhere"})
    assert (await rig.post()).status_code == 200


@pytest.mark.parametrize("text", ["not JSON", '{"resources": [{"@type": "x/unknown"}]}'])
async def test_routes_that_envoy_refuses_are_an_error_and_the_old_ones_stay(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with broken_files(monkeypatch, text), pytest.raises(EnvoyRejected):
        await rig.envoy.apply({MODEL: "http://127.0.0.1:1"})
    assert (await rig.post()).status_code == 200
    await rig.envoy.apply({MODEL: rig.upstream.url})


@contextmanager
def broken_files(monkeypatch: pytest.MonkeyPatch, text: str) -> Iterator[None]:
    def write(box: OneBox, *_: object) -> None:
        replace_file(box.routes_file, text)

    with monkeypatch.context() as patch:
        patch.setattr("headgate.dataplane.supervisor.write_dynamic", write)
        yield


async def test_the_path_of_an_upstream_url_is_put_before_the_request_s(rig: Rig) -> None:
    await rig.envoy.apply({MODEL: f"{rig.upstream.url}/base/"})
    await rig.post(path=CHAT + "?a=1")
    await rig.envoy.apply({MODEL: rig.upstream.url})
    assert rig.upstream.received[0].path == f"/base{CHAT}?a=1"


async def test_behind_a_path_anthropic_clients_still_read_their_shape(rig: Rig) -> None:
    await rig.envoy.apply({MODEL: "http://127.0.0.1:1/base"})
    answer = await rig.post(path="/v1/messages")
    await rig.envoy.apply({MODEL: rig.upstream.url})
    assert answer.json()["type"] == "error"


async def test_an_upstream_named_localhost_is_found_on_ipv4(rig: Rig) -> None:
    await rig.envoy.apply({MODEL: f"http://localhost:{rig.upstream.port}"})
    assert (await rig.post()).status_code == 200
    await rig.envoy.apply({MODEL: rig.upstream.url})
    assert rig.upstream.received[0].headers["host"] == f"localhost:{rig.upstream.port}"


async def test_the_upstream_reads_its_own_host_whatever_the_client_says(rig: Rig) -> None:
    await rig.post(host="evil.example")
    assert rig.upstream.received[0].headers["host"] == f"127.0.0.1:{rig.upstream.port}"


async def test_envoy_takes_an_https_upstream(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    await rig.envoy.apply({MODEL: "https://127.0.0.1:1", OTHER: "https://llm.localhost:1/base"})
    assert (await rig.post()).status_code == 503
    await rig.envoy.apply({MODEL: rig.upstream.url})


async def test_http2_clients_are_served_on_the_same_port(rig: Rig) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.box.listen_port)
    try:
        writer.write(preface)
        head = await asyncio.wait_for(reader.readexactly(9), PATIENCE_S)
    finally:
        writer.close()
        await writer.wait_closed()
    assert head[3] == 4  # a SETTINGS frame


async def test_a_second_client_connection_is_as_good(rig: Rig) -> None:
    async with httpx.AsyncClient(base_url=rig.client.base_url) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json={}) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
