"""Chunks in vLLM's own shape are read by a shorter way, with the same result."""

import pytest

from tests.tap.agreement import count_in_lua
from tests.tap.counting import count
from tests.tap.rig import TapEnvoy
from tests.tap.usual_streams import usual_chunk, usual_stream

pytestmark = pytest.mark.asyncio(loop_scope="session")
STREAMS, AT_ONCE = 4_000, 400


async def ways(tap: TapEnvoy, *events: bytes) -> str:
    """For each event, whether the shorter way reads it (u) or not (-), after a usual chunk."""
    response = await tap.usual.post("/", content=b"".join([usual_chunk(), *events]))
    assert response.status_code == 200, response.text
    return response.text


async def test_both_counters_count_the_same_of_usual_and_nearly_usual_streams(
    tap: TapEnvoy,
) -> None:
    """The counter in Python knows no shorter way."""
    for first in range(0, STREAMS, AT_ONCE):
        streams = [usual_stream(seed) for seed in range(first, first + AT_ONCE)]
        for stream, by_tap in zip(streams, await count_in_lua(tap.batch, streams), strict=True):
            assert by_tap == count(stream.headers, stream.pieces), stream


@pytest.mark.parametrize("content", [" a", "", "é", '"usage":{', "\\", 'a"}]', "data: [DONE]"])
async def test_any_text_of_the_model_is_read_by_the_shorter_way(
    tap: TapEnvoy, content: str
) -> None:
    assert await ways(tap, usual_chunk(content=content), usual_chunk(completion="2")) == "uu"


async def test_each_of_a_few_choices_is_read_by_the_shorter_way(tap: TapEnvoy) -> None:
    assert await ways(tap, *(usual_chunk(index=str(index)) for index in range(10))) == "u" * 10


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"id":"chatcmpl-1"', b'"id":"chatcmpl-2"'),
        (b'"index":0', b'"index":10'),
        (b'"index":0', b'"index": 0'),
        (b'{"content":', b'{"role":"assistant","content":'),
        (b'"logprobs"', b'"usage"'),
        (b'"completion_tokens":1', b'"completion_tokens":1.5'),
        (b'"completion_tokens":1', b'"completion_tokens":1000000000000000'),
        (b'"total_tokens":14', b'"total_tokens":14,"prompt_tokens_details":{}'),
        (b'],"usage"', b'],\n"usage"'),
        (b'],"usage"', b'],\r"usage"'),
        (b'],"usage"', b'] "usage"'),
        (b"}}\n\n", b"}}\n: ping\n\n"),
    ],
)
async def test_a_chunk_of_another_shape_goes_the_whole_way(
    tap: TapEnvoy, old: bytes, new: bytes
) -> None:
    other = usual_chunk().replace(old, new)
    assert other != usual_chunk()
    assert await ways(tap, other, usual_chunk()) == "-u"
