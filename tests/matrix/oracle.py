"""Reads the usage of an answer with a JSON parser: a second opinion on the charge."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_VOLATILE = re.compile(
    rb'(?<="id":")[^"]*|(?<="item_id":")[^"]*|(?<="created":)\d+|(?<="created_at":)\d+'
    rb'|(?<=_ms":)[0-9.e-]+'
)


def masked(body: bytes) -> bytes:
    """The body without what differs from answer to answer: ids and times."""
    return _VOLATILE.sub(b"0", body)


def gist(body: bytes) -> dict[str, Any]:
    """The content of a stream, however its tokens are dealt to events.

    A real vLLM puts several tokens into one event where the reader or the machine is slow. For each
    choice this is its text and the rest of its events, without those in mid-choice that have
    tokens. Running numbers are only there or not.
    """
    said: dict[str, Any] = {}
    for event in events_of(masked(body)):
        if not event.endswith(b"\n\n") or b"data: [DONE]" in event:
            said.setdefault("end", []).append(event)
            continue
        value = data_of(event)
        choice = next(iter(value.get("choices", [])), None)
        text, rest = _text_and_rest(value, choice)
        group = "" if choice is None else str(choice["index"])
        texts, rests = said.setdefault(group, ([], []))
        texts.append(text)
        if rest not in rests[-1:] and (not text or choice is None or choice["finish_reason"]):
            rests.append(rest)
    return {
        group: part if group == "end" else ("".join(part[0]), part[1])
        for group, part in said.items()
    }


def events_with_text(body: bytes) -> int:
    """How many whole events have output; each has a token at least."""
    count = 0
    for event in events_of(body):
        if event.endswith(b"\n\n"):
            value = data_of(event)
            choice = next(iter(value.get("choices", [])), None)
            count += bool(_text_and_rest(value, choice)[0])
    return count


def _text_and_rest(value: dict[str, Any], choice: dict[str, Any] | None) -> tuple[str, Any]:
    value.pop("sequence_number", None)
    if choice is None:
        delta = value.get("delta")
        if isinstance(delta, str):
            return str(value.pop("delta")), value
        text = delta.pop("text", "") if isinstance(delta, dict) else ""
        return text, value
    if value.get("usage"):
        value["usage"] = True
    inside, name = (choice["delta"], "content") if "delta" in choice else (choice, "text")
    if "role" in inside:  # the event that opens the choice has no text by its nature
        return "", value
    return inside.pop(name, "") or "", value


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
    """The sums of the usage in the events so far."""

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
        heard = value.get("object") == "transcription.chunk" and value["choices"]
        self.events += kind in ("response.output_text.delta", "content_block_delta") or bool(heard)
        if usage is None:
            return
        prompt, completion = prompt_and_completion(usage)
        if kind == "message_start":
            self.prompts[0] = prompt
        for choice in value.get("choices", []):
            index = choice.get("index", 0)  # a transcription has none
            several_prompts = value["object"] == "text_completion"
            self.prompts[index // self.n if several_prompts else 0] = prompt
            self.completions[index] = completion


def progress(events: list[bytes], n: int) -> Progress:
    """The usage in these events, with `n` choices for each prompt."""
    so_far = Progress(n)
    for event in events:
        so_far.add(event)
    return so_far
