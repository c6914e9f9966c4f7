"""Random answers, with the true numbers of each.

The truth is recorded while an answer is written, in another way than either counter's. Marks as in
the case files are around the parts to take out, and the numbers are added up beside the text.
"""

import itertools
import random
import re
from dataclasses import dataclass

from tests.tap.cases_file import CLIENT_USAGES, LINE_ENDS, Case
from tests.tap.writer import ECHOES, TEXTS, Writer


def usage_object(
    writer: Writer, prompt: str, completion: str, more: bool
) -> tuple[str, dict[str, int | None]]:
    """A usage object of OpenAI's chat and completions, with its details."""
    members = [("prompt_tokens", prompt), ("completion_tokens", completion)]
    details: dict[str, int | None] = {}
    if more:
        cached, details["cached"] = writer.count()
        reasoning, details["reasoning"] = writer.count()
        members.append(("prompt_tokens_details", writer.object([("cached_tokens", cached)])))
        members.append(
            ("completion_tokens_details", writer.object([("reasoning_tokens", reasoning)]))
        )
    writer.chance.shuffle(members)
    return writer.object(members), details


def chunk_stream(chance: random.Random, name: str) -> Case:
    """A stream of chat or completions."""
    writer = Writer(chance, breaks=chance.random() < 0.2)
    api = chance.choice(("chat", "completions"))
    n, prompts = chance.choice((1, 1, 2, 3)), chance.choice((1, 2)) if api == "completions" else 1
    style = chance.choice(("running", "running", "null", "none"))
    prompt_counts: dict[int, int] = {}
    completion_counts: dict[int, int] = {}
    unsent = ""
    for number in range(chance.randint(0, 6)):
        index = chance.randrange(n * prompts)
        opens = api == "chat" and number < n
        choices = f"[{writer.space()}{choice(writer, api, index, opens)}{writer.space()}]"
        usage = ""
        members = [("choices", choices)]
        writer.events += not opens
        members += [("model", '"org/served"'), ("echo", writer.value(chance.choice(ECHOES)))]
        if chance.random() < 0.2:
            members.append(("error", "null"))
        if style == "running" and chance.random() < 0.9:
            (prompt, prompt_count), (completion, count) = writer.count(), writer.count()
            usage = usage_object(writer, prompt, completion, False)[0]
            members.append(("usage", usage))
            if prompt_count is not None:
                prompt_counts[index // n] = prompt_count
            if count is not None:
                completion_counts[index] = count
            is_counted = count is not None
        elif style == "null":
            members.append(("usage", "null"))
        chance.shuffle(members)
        event = writer.event(writer.object(members, "usage", "‹›" if style == "null" else "«»"))
        if usage and is_counted:
            prompt, completion = (sum(each.values()) for each in (prompt_counts, completion_counts))
            final = usage if len(completion_counts) == 1 else summed(prompt, completion)
            unsent = event.replace(choices, "[]", 1).replace(usage, final, 1)
    writer.set("prompt", sum(prompt_counts.values()) if prompt_counts else None)
    writer.set("completion", sum(completion_counts.values()) if completion_counts else None)
    end_of_chunks(writer, unsent)
    return writer.finished(name, api, n, "text/event-stream; charset=utf-8")


def choice(writer: Writer, api: str, index: int, opens: bool) -> str:
    """One choice with output; without output if it opens a chat choice."""
    text = writer.value(writer.chance.choice(TEXTS))
    members = [("index", str(index))]
    if api == "completions":
        return writer.object([*members, ("text", text)])
    delta = {"role": '"assistant"', "content": '""'} if opens else {"content": text}
    if not opens and writer.chance.random() < 0.2:
        delta = {"tool_calls": writer.value([{"function": {"arguments": '{"usage":{}}'}}])}
    members.append(("delta", writer.object(list(delta.items()))))
    return writer.object([*members, ("finish_reason", "null")])


def summed(prompt: int, completion: int) -> str:
    """The usage of several choices, as the counters write it."""
    total = prompt + completion
    return f'{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion}}}'


def end_of_chunks(writer: Writer, unsent: str) -> None:
    """Perhaps an error, the last usage, and [DONE].

    `unsent` is added before [DONE] for `final` if there is no last usage.
    """
    chance = writer.chance
    if chance.random() < 0.1:
        writer.event(writer.object([("error", writer.value({"message": "no", "code": 500}))]))
        writer.usage["error"] = "1"
        unsent = ""
    if chance.random() < 0.7:
        (prompt, prompt_count), (completion, count) = writer.count(), writer.count()
        usage, details = usage_object(writer, prompt, completion, chance.random() < 0.5)
        members = [("choices", "[]"), ("usage", usage), ("id", '"c1"')]
        chance.shuffle(members)
        writer.marked += chance.choice(("", ": ping\n\n")) + "‹"
        writer.event(writer.object(members), with_noise=False)
        writer.marked += "›"
        unsent = ""
        details |= {"prompt": prompt_count, "completion": count}
        for key, value in details.items():
            writer.set(key, value)
    if chance.random() < 0.8:
        noise, added = writer.noise(), f"⟦{unsent}⟧" if unsent else ""
        whole, blank, lines = noise.rpartition("\n\n")
        writer.marked += f"{whole}{blank}{added}{lines}data: [DONE]\n\n"
        writer.usage["complete"] = "1"


def response_stream(chance: random.Random, name: str) -> Case:
    """A stream of responses."""
    writer = Writer(chance, breaks=chance.random() < 0.2)
    echo = writer.value(chance.choice(ECHOES))
    writer.event(
        writer.object([("response", f'{{"tools":{echo},"usage":null}}')]), "response.created"
    )
    for _ in range(chance.randint(0, 5)):
        delta = [("delta", writer.value(chance.choice(TEXTS))), ("item_id", '"m"')]
        writer.event(
            writer.object(delta), f"response.{chance.choice(('output_text', 'reasoning'))}.delta"
        )
        writer.events += 1
    if chance.random() < 0.1:
        writer.event(writer.object([("message", '"no"')]), "error")
        writer.usage["error"] = "1"
    if chance.random() < 0.8:
        last = chance.choice(("completed", "completed", "incomplete", "failed"))
        members = [
            ("id", '"r"'),
            ("model", '"org/served"'),
            ("tools", echo),
            ("text", writer.value(chance.choice(ECHOES))),
        ]
        if chance.random() < 0.9:
            members.append(("usage", response_usage(writer)))
        chance.shuffle(members)
        around = [("type", f'"response.{last}"'), ("response", writer.object(members))]
        chance.shuffle(around)
        writer.event(writer.object(around), f"response.{last}")
        writer.usage["complete"] = "1"
        if last == "failed":
            writer.usage["error"] = "1"
    return writer.finished(name, "responses", 1, "text/event-stream")


def response_usage(writer: Writer) -> str:
    """A usage object of responses, whose numbers are noted."""
    members = []
    for key, known in (("input_tokens", "prompt"), ("output_tokens", "completion")):
        text, count = writer.count()
        writer.set(known, count)
        members.append((key, text))
    for key, known, inner in (
        ("input_tokens_details", "cached", "cached_tokens"),
        ("output_tokens_details", "reasoning", "reasoning_tokens"),
    ):
        text, count = writer.count()
        writer.set(known, count)
        members.append((key, writer.object([(inner, text)])))
    writer.chance.shuffle(members)
    return writer.object(members)


def message_stream(chance: random.Random, name: str) -> Case:
    """A stream of messages."""
    writer = Writer(chance, breaks=chance.random() < 0.2)
    writer.set("prompt", known_prompt(usage := message_usage(writer)))
    writer.set("cached", usage["cache_read_input_tokens"][1])
    message = [
        ("usage", written(writer, usage)),
        ("model", '"org/served"'),
        ("content", "[]"),
        ("role", '"assistant"'),
    ]
    chance.shuffle(message)
    writer.event(writer.object([("message", writer.object(message))]), "message_start")
    for _ in range(chance.randint(0, 5)):
        delta = writer.object(
            [("type", '"text_delta"'), ("text", writer.value(chance.choice(TEXTS)))]
        )
        writer.event(writer.object([("index", "0"), ("delta", delta)]), "content_block_delta")
        writer.events += 1
    if chance.random() < 0.1:
        writer.event(writer.object([("error", '{"message":"no"}')]), "error")
        writer.usage["error"] = "1"
    if chance.random() < 0.8:
        usage = message_usage(writer)
        if chance.random() < 0.3:
            usage = {"output_tokens": usage["output_tokens"]}
        writer.set("prompt", known_prompt(usage))
        writer.set("cached", usage.get("cache_read_input_tokens", ("", None))[1])
        writer.set("completion", usage["output_tokens"][1])
        writer.event(
            writer.object([("delta", "{}"), ("usage", written(writer, usage))]), "message_delta"
        )
    if chance.random() < 0.8:
        writer.event('{"type":"message_stop"}', "message_stop")
        writer.usage["complete"] = "1"
    return writer.finished(name, "messages", 1, "text/event-stream")


Counts = dict[str, tuple[str, int | None]]


def message_usage(writer: Writer) -> Counts:
    """The counts of an Anthropic usage object, as written and as seen."""
    keys = [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    ]
    return {key: writer.count() for key in keys}


def known_prompt(usage: Counts) -> int | None:
    """input_tokens excludes the tokens that the cache read or wrote."""
    seen = {key: count for key, (_, count) in usage.items()}
    if seen.get("input_tokens") is None:
        return None
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(seen.get(name) or 0 for name in names)


def written(writer: Writer, usage: Counts) -> str:
    members = [(key, text) for key, (text, _) in usage.items()]
    writer.chance.shuffle(members)
    return writer.object(members)


def json_body(chance: random.Random, name: str) -> Case:
    """An answer without streaming."""
    writer = Writer(chance)
    api = chance.choice(("chat", "completions", "responses", "embeddings"))
    members = [("id", '"a"'), ("data", writer.value([0.5, -2e-3])), ("text", writer.value(TEXTS))]
    members.append(("model", '"org/served"'))
    members += [(f"echo{number}", writer.value(chance.choice(ECHOES))) for number in range(3)]
    if chance.random() < 0.9:
        (prompt, prompt_count), (completion, count) = writer.count(), writer.count()
        usage, details = usage_object(writer, prompt, completion, chance.random() < 0.5)
        members.append(("usage", usage))
        if api == "embeddings" and prompt_count is not None and count is None:
            count = 0
        details |= {"prompt": prompt_count, "completion": count}
        for key, value in details.items():
            writer.set(key, value)
    chance.shuffle(members)
    writer.marked = writer.object(members)
    writer.usage["complete"] = "1"
    return writer.finished(name, api, 1, "application/json")


NAMES = {"x-served-as": "org/served", "x-model": "alias"}
"""The request's headers if vLLM has another name for the model."""
_SERVED_AS = re.compile(rb'(?<!\\)("model"(?:\s|data:)*:(?:\s|data:)*")org/served(")')

KINDS = (chunk_stream, chunk_stream, response_stream, message_stream, json_body)


@dataclass(frozen=True)
class Generated:
    """One answer: its request's headers, its bytes in pieces, and the truth, if it is known."""

    headers: dict[str, str]
    pieces: list[bytes]
    seen: bytes | None
    usage: dict[str, str] | None

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)


def generated(seed: int) -> Generated:
    """The answer of this seed. One in four is damaged: then only agreement can be tested."""
    chance = random.Random(seed)
    case = chance.choice(KINDS)(chance, f"seed {seed}")
    client_usage = chance.choice(CLIENT_USAGES)
    line_end = LINE_ENDS[chance.choice(("LF", "LF", "CRLF", "CR"))]
    if case.kind == "application/json":
        line_end = "\n"
    headers = case.headers(client_usage)
    sent, seen = case.sent(line_end), case.seen(client_usage, line_end)
    if chance.random() < 0.4:
        headers |= NAMES
        seen = _SERVED_AS.sub(rb"\1alias\2", seen)
    if chance.random() < 0.25:
        return Generated(headers, cut(chance, damaged(chance, sent)), None, None)
    return Generated(headers, cut(chance, sent), seen, case.usage)


def damaged(chance: random.Random, sent: bytes) -> bytes:
    """The same with some bytes missing, doubled or changed."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(sent)) if sent else 0
        until = at + chance.choice((1, 1, 5, 50, len(sent)))
        other = chance.choice(
            (b"", b"", b'"', b"\\", b"}", b"{", b"\n\n", b"\r", sent[at:until] * 2)
        )
        sent = sent[:at] + other + sent[until:]
    return sent


def cut(chance: random.Random, sent: bytes) -> list[bytes]:
    """The bytes in a few pieces, or sometimes in single bytes."""
    if chance.random() < 0.05:
        return [sent[at : at + 1] for at in range(len(sent))] or [b""]
    cuts = sorted(chance.randrange(len(sent) + 1) for _ in range(chance.randint(0, 8)))
    ends = [0, *cuts, len(sent)]
    pieces = [sent[start:stop] for start, stop in itertools.pairwise(ends)]
    return [piece for piece in pieces if piece] or [b""]
