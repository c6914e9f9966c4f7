"""What usage an answer tells, read with a JSON parser: the second opinion on what was charged."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_VOLATILE = re.compile(
    rb'(?<="id":")[^"]*|(?<="item_id":")[^"]*|(?<="created":)\d+|(?<="created_at":)\d+'
)


def masked(body: bytes) -> bytes:
    """The body without what differs from answer to answer: ids and times."""
    return _VOLATILE.sub(b"?", body)


def without_member(body: bytes, name: str) -> bytes:
    """The body without a member whose value is a string and that another one precedes."""
    return re.sub(rb',"' + name.encode() + rb'":"[^"]*"', b"", body)


def as_asked(body: bytes, usage: str) -> bytes:
    """A stream with running usage in all of its events, as one who asks for that much gets it."""
    if usage == "continuous":
        return body
    events = []
    for event in events_of(body):
        if not is_last_word(event):
            events.append(re.sub(rb',"usage":\{[^{}]*(\{[^{}]*\}[^{}]*)*\}', b"", event))
        elif usage == "asked":
            events.append(event)
    return b"".join(events)


def events_of(body: bytes) -> list[bytes]:
    """The events of a stream, each with its blank line; a torn one at the end too."""
    return [event for event in re.split(rb"(?<=\n\n)", body) if event]


def data_of(event: bytes) -> dict[str, Any]:
    """The JSON of an event; empty for the end mark."""
    data = event.partition(b"data: ")[2]
    return {} if data.startswith(b"[DONE]") else dict(json.loads(data))


def usage_of(value: dict[str, Any]) -> dict[str, Any] | None:
    """The usage of an answer or an event, wherever its API puts it."""
    for inside in (value, value.get("response") or {}, value.get("message") or {}):
        if inside.get("usage") is not None:
            return dict(inside["usage"])
    return None


def prompt_and_completion(usage: dict[str, Any]) -> tuple[int, int]:
    """The two numbers; Anthropic's input leaves out what the cache read or wrote."""
    if "prompt_tokens" in usage:
        return usage["prompt_tokens"], usage.get("completion_tokens", 0)
    cache = ("cache_read_input_tokens", "cache_creation_input_tokens")
    prompt = usage["input_tokens"] + sum(usage.get(name) or 0 for name in cache)
    return prompt, usage["output_tokens"]


def is_last_word(event: bytes) -> bool:
    """Whether this event has the final usage of a stream."""
    value = data_of(event)
    if value.get("type") in ("message_delta", "response.completed", "response.incomplete"):
        return True
    return value.get("choices") == [] and usage_of(value) is not None


@dataclass
class Progress:
    """What the events so far tell, one after the other."""

    n: int
    events: int = 0
    prompts: dict[int, int] = field(default_factory=dict)
    completions: dict[int, int] = field(default_factory=dict)

    @property
    def prompt(self) -> int:
        """Each prompt once."""
        return sum(self.prompts.values())

    @property
    def completion(self) -> int:
        """Of all choices."""
        return sum(self.completions.values())

    def add(self, event: bytes) -> None:
        """Takes in the next event."""
        value = data_of(event)
        usage = usage_of(value)
        kind = str(value.get("type", ""))
        self.events += kind in ("response.output_text.delta", "content_block_delta")
        if usage is None:
            return
        prompt, completion = prompt_and_completion(usage)
        if kind == "message_start":
            self.prompts[0] = prompt
        for choice in value.get("choices", []):
            several_prompts = value["object"] == "text_completion"
            self.prompts[choice["index"] // self.n if several_prompts else 0] = prompt
            self.completions[choice["index"]] = completion


def progress(events: list[bytes], n: int) -> Progress:
    """What these events tell, with `n` choices for each prompt."""
    so_far = Progress(n)
    for event in events:
        so_far.add(event)
    return so_far
