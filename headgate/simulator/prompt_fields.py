"""Reads the prompt of a request: its messages with their parts, its tools, its plain prompts. Pure.

A request that vLLM refuses raises vLLM's own error, VllmError.
"""

from typing import Any

from headgate.simulator import prompts
from headgate.simulator.fields import Fields, objects
from headgate.simulator.vllm_errors import bad_request, invalid_body, to_json

_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})
_MEDIA_PARTS = ("image", "input_image", "audio", "input_audio", "video", "input_file", "file")


def tools_text(body: Fields) -> str:
    """The tools as they are rendered into the prompt; "" where there are none."""
    tools = [tool.values for tool in body.objects("tools")]
    return to_json(tools) if tools else ""


def turns_of(values: Any, where: str) -> list[tuple[str, str]]:
    """The messages as (role, text); `where` is their path in the body, for errors."""
    turns = []
    for item in objects(list_of(values, where), where):
        if item.raw("role") is None and "type" in item:  # a call or its output, in responses
            turns.append(("tool", to_json(item.values)))
            continue
        item.required("role")
        role = item.text("role") or ""
        turns.append((role, content_text(item.raw("content"), item.path("content"))))
    return turns


def content_text(content: Any, where: str) -> str:
    """The text of a message: of a string, of the parts of a list, or "" for null."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise invalid_body("string_type", where, "Input should be a valid string")
    return "".join(_part_text(part) for part in objects(content, where))


def plain_prompts(body: Fields, name: str) -> tuple[bytes, ...]:
    """A string, a list of strings, token ids, or a list of id lists; never mixed."""
    value = body.raw(name)
    if value is None or value in ("", []):
        raise bad_request(f"Either {name} or {name}_embeds must be provided and non-empty.", name)
    many = value if isinstance(value, list) else [value]
    if all(isinstance(prompt, str) for prompt in many):
        return tuple(prompts.from_text(prompt) for prompt in many)
    if _are_ids(many):
        return (prompts.from_ids(many),)
    if all(isinstance(prompt, list) and prompt and _are_ids(prompt) for prompt in many):
        return tuple(prompts.from_ids(prompt) for prompt in many)
    message = "Input should be a string, a list of strings, token ids, or a list of id lists"
    raise invalid_body("union_type", body.path(name), message)


def list_of(values: Any, where: str) -> list[Any]:
    """The value itself, which must be a list."""
    if not isinstance(values, list):
        raise invalid_body("list_type", where, "Input should be a valid list")
    return values


def _part_text(part: Fields) -> str:
    kind = part.text("type") or ""
    if kind in _TEXT_PARTS:
        return part.text("text") or ""
    if kind.startswith(_MEDIA_PARTS):
        raise bad_request(f"The model does not take {kind} parts: it is not a multimodal model.")
    return to_json(part.values)


def _are_ids(values: list[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 2**31 for value in values)
