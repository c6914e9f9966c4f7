"""Random streams of chunks in vLLM's own shape, which the tap reads by a shorter way."""

import json
import random

from tests.tap.cases_file import CLIENT_USAGES
from tests.tap.streams import NAMES, Generated, cut, damaged
from tests.tap.writer import TEXTS

_CONTENTS = (*TEXTS, '"role"', '"usage"', ',"usage":{"prompt_tokens":1}}', "", "\r")
_INDICES = ("0", "0", "0", "1", "2", "9", "10", " 0", "-1", "}", ":", "a", "")
_NUMBERS = ("0", "7", "7", "41", "999999999999999", "1000000000000000", "1.5", "null")
_ENDS = (
    b"data: [DONE]\n\n",
    b'data: {"error":{"message":"no","code":500}}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"total_tokens":9,"completion_tokens":2}}\n\n',
    b": ping\n\n",
)


def usual_chunk(
    *, content: str = " a", index: str = "0", completion: str = "1", api: str = "chat"
) -> bytes:
    """A chunk as vLLM writes it."""
    text = json.dumps(content, ensure_ascii=False)
    output = f'"delta":{{"content":{text}}}' if api == "chat" else f'"text":{text}'
    return (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,'
        f'"model":"org/served","choices":[{{"index":{index},{output},"logprobs":null,'
        '"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":13,"total_tokens":14,'
        f'"completion_tokens":{completion}}}}}\n\n'
    ).encode()


def usual_stream(seed: int) -> Generated:
    """The stream of this seed. Some of its events are damaged, or are none of the usual ones."""
    chance = random.Random(seed)
    api = chance.choice(("chat", "completions"))
    headers = {
        "x-api": api,
        "x-client-usage": chance.choice(CLIENT_USAGES),
        "x-n": chance.choice(("1", "2")),
        "x-kind": "text/event-stream",
    }
    events = [_event(chance, api) for _ in range(chance.randint(1, 8))]
    pieces: list[bytes] = []
    for event in events:
        if pieces and chance.random() < 0.2:
            pieces[-1] += event
        else:
            pieces.append(event)
    if chance.random() < 0.2:
        pieces = cut(chance, b"".join(pieces))
    return Generated(headers | (NAMES if chance.random() < 0.3 else {}), pieces, None, None)


def _event(chance: random.Random, api: str) -> bytes:
    if chance.random() < 0.1:
        return chance.choice(_ENDS)
    event = usual_chunk(
        content=chance.choice(_CONTENTS),
        index=chance.choice(_INDICES) if chance.random() < 0.3 else "0",
        completion=chance.choice(_NUMBERS) if chance.random() < 0.2 else str(chance.randint(0, 99)),
        api=api,
    )
    if chance.random() < 0.1:
        event = event.replace(b'"content":', b'"role":"assistant","content":')
    if chance.random() < 0.1:
        return event.replace(chance.choice((b",", b":", b"}", b'"id"')), b" , ", 1)
    return damaged(chance, event) if chance.random() < 0.15 else event
