"""HTTP/2 frames that a client may misuse, and the outcome of each stream."""

import asyncio
from collections.abc import Iterable

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.door.rig import BODIES
from tests.envoy_process import CHAT
from tests.patience import PATIENCE_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
Pairs = list[tuple[str, str]]
KIND = ("content-type", "application/json")
POST: Pairs = [(":method", "POST"), (":scheme", "http"), (":path", CHAT), (":authority", "a"), KIND]
assert CHAT in BODIES


def block(pairs: Pairs) -> bytes:
    """A header block that uses no dynamic table, so that blocks may come in any order."""
    fields = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in pairs]
    return hpack.Encoder().encode(fields, huffman=False)


def head(pairs: Pairs, *, stream: int = 1, end: bool = False, parts: int = 1) -> bytes:
    """HEADERS in `parts` pieces; all but the first are CONTINUATION."""
    data = block(pairs)
    size = -(-len(data) // parts)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    frames: list[Frame] = [HeadersFrame(stream, data=pieces[0])]
    frames += [ContinuationFrame(stream, data=piece) for piece in pieces[1:]]
    if end:
        frames[0].flags.add("END_STREAM")
    frames[-1].flags.add("END_HEADERS")
    return b"".join(frame.serialize() for frame in frames)


def data(body: bytes, *, stream: int = 1, end: bool = True, padding: int = 0) -> bytes:
    """One DATA frame."""
    frame = DataFrame(stream, data=body, pad_length=padding)
    if padding:
        frame.flags.add("PADDED")
    if end:
        frame.flags.add("END_STREAM")
    return frame.serialize()


def pieces(body: bytes, sizes: Iterable[int]) -> bytes:
    """DATA frames of these sizes, and the rest in a last frame."""
    sent, at = b"", 0
    for size in sizes:
        sent += data(body[at : at + size], end=False)
        at += size
    return sent + data(body[at:])


def reset(stream: int = 1) -> bytes:
    """RST_STREAM, with CANCEL."""
    return RstStreamFrame(stream, error_code=8).serialize()


async def outcomes(port: int, sent: bytes, streams: Iterable[int] = (1,)) -> dict[int, str]:
    """The outcome of these streams: a status, or `ended`, alone or with the connection."""
    by_stream: dict[int, str] = {}
    wanted = set(streams)
    decoder = hpack.Decoder()
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(PREFACE + sent)
            while not wanted <= set(by_stream):
                frame = await _next_frame(reader)
                if frame is None or isinstance(frame, GoAwayFrame):
                    return {stream: by_stream.get(stream, "ended") for stream in wanted}
                if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                    writer.write(SettingsFrame(0, flags=["ACK"]).serialize())
                elif isinstance(frame, HeadersFrame):
                    fields = dict(decoder.decode(frame.data))
                    if ":status" in fields and fields[":status"] != "100":
                        by_stream.setdefault(frame.stream_id, fields[":status"])
                elif isinstance(frame, RstStreamFrame):
                    by_stream.setdefault(frame.stream_id, "ended")
            return by_stream
        finally:
            writer.close()


async def _next_frame(reader: asyncio.StreamReader) -> Frame | None:
    try:
        frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
        frame.parse_body(memoryview(await reader.readexactly(length)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return frame
