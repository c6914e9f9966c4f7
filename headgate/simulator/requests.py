"""Reads request bodies as vLLM does: an InferenceRequest, or vLLM's own error. Pure.

Unknown fields are ignored; `model` absent, null or "" is the base model. The prompt is rendered
here, so that all later code works on tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.simulator import prompts
from headgate.simulator.fields import Fields
from headgate.simulator.prompt_fields import (
    content_text,
    list_of,
    plain_prompts,
    tools_text,
    turns_of,
)
from headgate.simulator.vllm_errors import VllmError, bad_request, invalid_body

MAX_CHOICES = 16384
"""`VLLM_MAX_N_SEQUENCES`."""
_COMPLETIONS_DEFAULT_TOKENS = 16
_GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """An inference request, whatever its API."""

    model: str
    """As the client named it; "" is the base model."""
    prompts: tuple[bytes, ...]
    max_tokens: int | None = None
    """None: until the model stops by itself."""
    max_tokens_field: str = "max_tokens"
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    cache_salt: str = ""
    echo: tuple[str, ...] = ()
    """/v1/completions with `echo`: the text of each prompt, which comes before the output."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields that an answer repeats (responses) or is shaped by (embeddings)."""


def read_chat(body: Fields) -> InferenceRequest:
    """POST /v1/chat/completions. max_completion_tokens wins over max_tokens."""
    turns = turns_of(body.required("messages"), body.path("messages"))
    if body.raw("tools") == []:
        message = "`tools` must not be an empty array. Either provide at least one tool or omit the"
        raise bad_request(f"{message} field entirely.", "tools")
    if not turns:
        raise bad_request("`messages` must hold at least one message.")
    newer = "max_completion_tokens"
    limit_field = newer if newer in body else "max_tokens"
    include, continuous = _usage_options(body)
    return InferenceRequest(
        model=_model(body),
        prompts=(prompts.from_messages(turns, tools_text(body)),),
        max_tokens=body.integer(limit_field),
        max_tokens_field=limit_field,
        n=_choices(body),
        stream=body.flag("stream"),
        include_usage=include,
        continuous_usage=continuous,
        cache_salt=body.cache_salt(),
    )


def read_chat_batch(body: Fields) -> InferenceRequest:
    """POST /v1/chat/completions/batch: a list of conversations. It knows neither stream nor n."""
    where = body.path("messages")
    conversations = [
        turns_of(messages, where) for messages in list_of(body.required("messages"), where)
    ]
    if not conversations or not all(conversations):
        raise invalid_body("too_short", where, "List should have at least 1 item")
    if body.raw("n") not in (None, 1):
        raise bad_request("Batch chat completions do not support `n > 1`.", "n")
    newer = "max_completion_tokens"
    limit_field = newer if newer in body else "max_tokens"
    return InferenceRequest(
        model=_model(body),
        prompts=tuple(prompts.from_messages(turns, "") for turns in conversations),
        max_tokens=body.integer(limit_field),
        max_tokens_field=limit_field,
        cache_salt=body.cache_salt(),
    )


def read_completions(body: Fields) -> InferenceRequest:
    """POST /v1/completions. The maximum is 16 where none is given."""
    rendered = plain_prompts(body, "prompt")
    limit = body.integer("max_tokens")
    include, continuous = _usage_options(body)
    echoed = rendered if body.flag("echo") else ()
    return InferenceRequest(
        model=_model(body),
        prompts=rendered,
        max_tokens=_COMPLETIONS_DEFAULT_TOKENS if limit is None else limit,
        n=_choices(body),
        stream=body.flag("stream"),
        include_usage=include,
        continuous_usage=continuous,
        cache_salt=body.cache_salt(),
        echo=tuple(prompt.decode(errors="replace") for prompt in echoed),
    )


def read_responses(body: Fields) -> InferenceRequest:
    """POST /v1/responses, of a server without a response store (vLLM's default)."""
    given = body.required("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    turns = turns_of(items, body.path("input"))
    instructions = body.text("instructions")
    if instructions is not None:
        turns.insert(0, ("system", instructions))
    body.objects("tools")
    body.object("text")
    _string_map(body, "metadata")
    if body.flag("background"):
        message = "This vLLM engine does not support `store=True` and therefore does not support"
        raise VllmError(
            400, "invalid_request_error", f"{message} the background mode.", "background"
        )
    previous = body.text("previous_response_id")
    if previous is not None:
        message = f"Response with id '{previous}' not found."
        raise VllmError(404, "invalid_request_error", message, "response_id")
    return InferenceRequest(
        model=_model(body),
        prompts=(prompts.from_messages(turns, tools_text(body)),),
        max_tokens=body.integer("max_output_tokens"),
        max_tokens_field="max_output_tokens",
        stream=body.flag("stream"),
        cache_salt=body.cache_salt(),
        options=body.values,
    )


def read_messages(body: Fields) -> InferenceRequest:
    """POST /v1/messages. `model` and `max_tokens` are required."""
    if not isinstance(body.required("model"), str) or not body.raw("model"):
        raise invalid_body("value_error", "body.model", "Value error, Model is required")
    turns = turns_of(body.required("messages"), body.path("messages"))
    body.required("max_tokens")
    limit = body.integer("max_tokens") or 0
    if limit <= 0:
        message = "Value error, max_tokens must be positive"
        raise invalid_body("value_error", "body.max_tokens", message)
    if "system" in body:
        turns.insert(0, ("system", content_text(body.raw("system"), body.path("system"))))
    if not turns:
        raise bad_request("`messages` must hold at least one message.")
    return InferenceRequest(
        model=_model(body),
        prompts=(prompts.from_messages(turns, tools_text(body)),),
        max_tokens=limit,
        stream=body.flag("stream"),
        cache_salt=body.cache_salt(),
    )


def read_count_tokens(body: Fields) -> InferenceRequest:
    """POST /v1/messages/count_tokens: as messages, without a maximum."""
    counted = {"max_tokens": 1, "stream": False, "cache_salt": None}
    return read_messages(Fields({**body.values, **counted}))


def read_embeddings(body: Fields) -> InferenceRequest:
    """POST /v1/embeddings: `input` in the four forms of a prompt, or `messages`."""
    if "messages" in body:
        turns = turns_of(body.raw("messages"), body.path("messages"))
        rendered: tuple[bytes, ...] = (prompts.from_messages(turns),)
    else:
        rendered = plain_prompts(body, "input")
    encoding = body.text("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        allowed = "Input should be 'float' or 'base64'"
        raise invalid_body("literal_error", "body.encoding_format", allowed)
    if "dimensions" in body:
        message = "Model does not support matryoshka representation"
        raise bad_request(message, "dimensions", body.raw("dimensions"))
    return InferenceRequest(
        model=_model(body),
        prompts=rendered,
        cache_salt=body.cache_salt(),
        options={"encoding": encoding},
    )


def read_tokenize(body: Fields) -> InferenceRequest:
    """POST /tokenize: `messages` (with the chat template) or `prompt`."""
    if "messages" in body:
        turns = turns_of(body.raw("messages"), body.path("messages"))
        answering = body.raw("add_generation_prompt") is None or body.flag("add_generation_prompt")
        rendered = prompts.from_messages(turns, tools_text(body), add_generation_prompt=answering)
    else:
        body.required("prompt")
        rendered = prompts.from_text(body.text("prompt") or "")
    return InferenceRequest(model=_model(body), prompts=(rendered,))


def check_lengths(request: InferenceRequest, max_model_len: int) -> None:
    """Refuses what cannot fit: a maximum out of range, a prompt longer than the context.

    A prompt and a maximum that only together exceed the context pass: `plan` clamps them.
    """
    limit, name = request.max_tokens, request.max_tokens_field
    if limit is not None and limit > max_model_len:
        message = f"{name}={limit} cannot be greater than max_model_len={max_model_len}."
        raise bad_request(f"{message} Please request fewer output tokens.", name, limit)
    if limit is not None and limit < 1 and not (request.echo and limit == 0):
        raise bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    longest = max(prompts.count_tokens(prompt) for prompt in request.prompts)
    if longest >= max_model_len:
        message = (
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt "
            f"contains {longest} input tokens, which exceeds this limit even without any output "
            "tokens. Please reduce the length of the input prompt."
        )
        raise bad_request(message, "input_tokens", longest)


def _model(body: Fields) -> str:
    return body.text("model") or ""


def _choices(body: Fields) -> int:
    n = body.integer("n")
    if n is None:
        return 1
    temperature = body.raw("temperature")
    if isinstance(temperature, int | float) and 0 <= temperature < _GREEDY_BELOW and n > 1:
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    if n < 1:
        raise bad_request(f"n must be at least 1, got {n}.")
    if n > MAX_CHOICES:
        message = f"n must be at most {MAX_CHOICES}, got {n}. To increase this limit, set the"
        raise bad_request(f"{message} VLLM_MAX_N_SEQUENCES environment variable.")
    return n


def _usage_options(body: Fields) -> tuple[bool, bool]:
    options = body.object("stream_options")
    if options is None or not options.values:
        return False, False
    if not body.raw("stream"):
        message = "Stream options can only be defined when `stream=True`."
        raise bad_request(message, "stream_options")
    include = options.flag("include_usage")
    return include, include and options.flag("continuous_usage_stats")


def _string_map(body: Fields, name: str) -> None:
    values = body.object(name)
    if values is not None and not all(isinstance(value, str) for value in values.values.values()):
        raise invalid_body("string_type", body.path(name), "Input should be a valid string")
