"""Messages damaged on their way: seeds that a real Envoy has sent, changed at random."""

import base64
import json
from pathlib import Path

from hypothesis import strategies as st

FOLDER = Path(__file__).parent / "seeds"
MESSAGES: dict[str, list[bytes]] = {
    hook: [base64.b64decode(text) for text in texts]
    for hook, texts in json.loads((FOLDER / "messages.json").read_text("utf-8")).items()
}
"""Messages of Envoy 1.40 to each hook: of a streamed chat, of a broken body, of two prompts."""

HTTP2 = [base64.b64decode(text) for text in json.loads((FOLDER / "http2.json").read_text("utf-8"))]
"""The bytes of connections after the client's preface: grpcio's, and Envoy's to the hooks."""


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds after a few changes of bytes, lengths, parts and order."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        part = data[start:end]
        changes = [
            b"",
            part + part,
            part[::-1],
            draw(st.binary(max_size=8)),
            bytes(byte ^ draw(st.sampled_from((1, 0x80, 0xFF))) for byte in part[:1]) + part[1:],
            draw(st.sampled_from(seeds))[start:end],
        ]
        data = data[:start] + draw(st.sampled_from(changes)) + data[end:]
    return data
