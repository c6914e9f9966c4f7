"""How requests are read from an HTTP/2 connection: one meaning or an error, and no leftovers."""

import asyncio
import json

import pytest

from headgate._gen.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from headgate.core.contract import OP_RESERVE, OP_SETTLE
from headgate.dataplane.envoy_admin import EnvoyAdmin
from tests.door.http2 import KIND, POST, Pairs, data, head, outcomes, pieces, reset
from tests.door.rig import BODIES, Decider
from tests.envoy_process import CHAT, Rig
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = json.dumps(BODIES[CHAT]).encode()
LENGTH = ("content-length", str(len(SMALL)))
BODY = data(SMALL)
ACTIVE = "http.door.downstream_rq_active"


def but(name: str, *values: str) -> Pairs:
    """The headers of a request without this header, or with these values of it."""
    at = next(index for index, (known, _) in enumerate(POST) if known == name)
    return [*POST[:at], *((name, value) for value in values), *POST[at + 1 :]]


PASSES: dict[str, bytes] = {
    "one DATA frame": head([*POST, LENGTH]) + BODY,
    "no content-length": head(POST) + BODY,
    "frames of odd sizes": head(POST) + pieces(SMALL, [1, 0, 2, 3, 0, 7]),
    "a byte in each frame": head(POST) + pieces(SMALL, [1] * len(SMALL)),
    "padding": head([*POST, LENGTH]) + data(SMALL, padding=255),
    "padding around pieces": head(POST)
    + data(SMALL[:9], end=False, padding=17)
    + data(b"", end=False, padding=3)
    + data(SMALL[9:], padding=1),
    "an empty frame at the end": head(POST) + data(SMALL, end=False) + data(b""),
    "headers in CONTINUATION": head(POST, parts=4) + BODY,
    "trailers": head(POST)
    + data(SMALL, end=False)
    + head([("x-headgate-base", "evil"), ("x-vllm-priority", "-9")], end=True),
    "te: trailers": head([*POST, ("te", "trailers")]) + BODY,
    "waiting to be told to continue": head([*POST, LENGTH, ("expect", "100-continue")]) + BODY,
    "forged headers": head(
        [*POST, ("x-headgate-base", "evil"), ("x-request-id", "evil"), ("x-envoy-retry-on", "5xx")]
    )
    + BODY,
}
"""The upstream gets exactly the small request, once."""

REFUSED: dict[str, tuple[bytes, str]] = {
    "a content-length that is too small": (
        head([*POST, ("content-length", "5")]) + BODY,
        "ended",
    ),
    "a content-length that is too large": (
        head([*POST, ("content-length", "999")]) + BODY,
        "ended",
    ),
    "a length and no body": (head([*POST, LENGTH], end=True), "ended"),
    "two lengths": (head([*POST, LENGTH, ("content-length", "5")]) + BODY, "ended"),
    "a length with a sign": (
        head([*POST, ("content-length", f"+{len(SMALL)}")]) + BODY,
        "ended",
    ),
    "no body": (head(POST, end=True), "400"),
    "two paths": (head(but(":path", CHAT, "/invocations")) + BODY, "ended"),
    "no path": (head(but(":path")) + BODY, "ended"),
    "an empty path": (head(but(":path", "")) + BODY, "ended"),
    "two methods": (head(but(":method", "POST", "GET")) + BODY, "ended"),
    "no method": (head(but(":method")) + BODY, "ended"),
    "a method of its own": (head(but(":method", "PO ST")) + BODY, "ended"),
    "two authorities": (head(but(":authority", "a", "b")) + BODY, "ended"),
    "no scheme": (head(but(":scheme")) + BODY, "ended"),
    "a pseudo header of its own": (head([(":x", "y"), *POST]) + BODY, "ended"),
    "a pseudo header of answers": (head([(":status", "200"), *POST]) + BODY, "ended"),
    "a pseudo header behind others": (
        head([*POST[:2], KIND, *POST[2:4]]) + BODY,
        "ended",
    ),
    "pseudo headers in trailers": (
        head(POST) + data(SMALL, end=False) + head([(":path", "/invocations")], end=True),
        "ended",
    ),
    "upper case": (head([*POST, ("X-Up", "a")]) + BODY, "ended"),
    "connection": (head([*POST, ("connection", "close")]) + BODY, "ended"),
    "keep-alive": (head([*POST, ("keep-alive", "5")]) + BODY, "ended"),
    "proxy-connection": (head([*POST, ("proxy-connection", "close")]) + BODY, "ended"),
    "transfer-encoding": (head([*POST, ("transfer-encoding", "chunked")]) + BODY, "ended"),
    "upgrade": (head([*POST, ("upgrade", "h2c")]) + BODY, "ended"),
    "another te": (head([*POST, ("te", "gzip")]) + BODY, "ended"),
    "a line end in a value": (
        head([*POST, ("x-a", "b\r\ntransfer-encoding: chunked")]) + BODY,
        "ended",
    ),
    "a NUL in a value": (head([*POST, ("x-a", "b\0c")]) + BODY, "ended"),
    "a space in a name": (head([*POST, ("x a", "b")]) + BODY, "ended"),
    "a colon in a name": (head([*POST, ("a:b", "c")]) + BODY, "ended"),
    "the content type twice": (head([*POST, ("content-type", "text/plain")]) + BODY, "400"),
    "a path of its own kind": (head(but(":path", "http://evil/invocations")) + BODY, "ended"),
    "a CONNECT": (head([(":method", "CONNECT"), (":authority", "a:80")]) + BODY, "ended"),
    "DATA before HEADERS": (BODY, "ended"),
    "HEADERS cut off by DATA": (
        head(POST, parts=2)[: -len(head(POST, parts=2)) // 2] + BODY,
        "ended",
    ),
    "padding longer than its frame": (
        head(POST) + b"\0\0\x05\0\x09\0\0\0\x01" + b"\xffabcd",
        "ended",
    ),
    "a frame above the size that was agreed": (
        head(POST) + b"\xff\xff\xff\0\x01\0\0\0\x01" + b" " * 70_000,
        "ended",
    ),
}
"""No byte reaches the upstream: there is an error, or the stream or the connection ends."""


async def holds_nothing(rig: Rig) -> None:
    """Waits until no request runs in Envoy and every reservation is settled."""
    admin = EnvoyAdmin(rig.box.admin_socket)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (await admin.numbers([ACTIVE]))[ACTIVE]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await admin.close()
    services = rig.services
    await services.until(
        lambda: len(services.descriptors(OP_SETTLE)) >= len(services.descriptors(OP_RESERVE))
    )


def decide_each(message: ProcessingRequest) -> ProcessingResponse:
    """Like the service, for requests that run at the same time and need no rewrite."""
    return Decider().process(message)


async def ready(rig: Rig) -> int:
    await rig.reset()
    rig.services.process = Decider().process
    return rig.box.listen_port


@pytest.mark.parametrize("shape", PASSES)
async def test_a_request_that_has_one_meaning_passes_with_it(rig: Rig, shape: str) -> None:
    assert await outcomes(await ready(rig), PASSES[shape]) == {1: "200"}
    assert [received.body for received in rig.upstream.received] == [SMALL]
    headers = rig.upstream.received[0].headers
    assert headers["x-headgate-base"] == "tiny"
    assert headers["x-request-id"] != "evil"
    assert not {"x-vllm-priority", "expect", "x-envoy-retry-on"} & set(headers)
    await holds_nothing(rig)


@pytest.mark.parametrize("shape", REFUSED)
async def test_a_request_without_one_meaning_reaches_nobody(rig: Rig, shape: str) -> None:
    sent, expected = REFUSED[shape]

    assert await outcomes(await ready(rig), sent) == {1: expected}
    await holds_nothing(rig)
    assert rig.upstream.received == []


async def test_a_host_beside_another_authority_never_reaches_vllm(rig: Rig) -> None:
    """Routes read neither, and the upstream gets its own name."""
    sent = head([*POST, ("host", "evil")]) + BODY
    outcome = await outcomes(await ready(rig), sent)

    assert outcome in ({1: "200"}, {1: "ended"})
    for received in rig.upstream.received:
        assert received.headers["host"] == f"127.0.0.1:{rig.upstream.port}"
    await holds_nothing(rig)


@pytest.mark.parametrize("sent", [head(POST), head(POST) + data(SMALL[:9], end=False)])
async def test_a_request_that_is_taken_back_before_its_end_reaches_nobody(
    rig: Rig, sent: bytes
) -> None:
    """The next stream on the same connection is answered."""
    behind = head(POST, stream=3) + data(SMALL, stream=3)

    assert await outcomes(await ready(rig), sent + reset() + behind, [3]) == {3: "200"}
    await holds_nothing(rig)
    assert len(rig.upstream.received) == len(rig.services.descriptors(OP_RESERVE)) == 1


async def test_a_request_that_is_taken_back_after_its_end_is_settled(rig: Rig) -> None:
    behind = head(POST, stream=3) + data(SMALL, stream=3)

    statuses = await outcomes(await ready(rig), head(POST) + BODY + reset() + behind, [3])
    await holds_nothing(rig)
    assert statuses == {3: "200"}
    reserved = len(rig.services.descriptors(OP_RESERVE))
    assert len(rig.services.descriptors(OP_SETTLE)) == reserved


async def test_streams_among_each_other_keep_their_own_bodies(rig: Rig) -> None:
    """Three requests with interleaved frames on one connection."""
    streams = (1, 3, 5)
    bodies = {stream: SMALL.replace(b"Hi", b"H%d" % stream) for stream in streams}
    sent = b"".join(head(POST, stream=stream) for stream in streams)
    for at in range(0, len(SMALL), 7):
        for stream in streams:
            body = bodies[stream]
            last = at + 7 >= len(body)
            sent += data(body[at : at + 7], stream=stream, end=last)

    await rig.reset()
    rig.services.process = decide_each

    statuses = await outcomes(rig.box.listen_port, sent, streams)
    assert statuses == dict.fromkeys(streams, "200")
    assert sorted(request.body for request in rig.upstream.received) == sorted(bodies.values())
    await holds_nothing(rig)


async def test_a_second_head_on_a_stream_is_no_second_request(rig: Rig) -> None:
    sent = head(POST) + BODY + head(POST, end=True)

    await outcomes(await ready(rig), sent)
    await holds_nothing(rig)
    assert [received.body for received in rig.upstream.received] in ([], [SMALL])
