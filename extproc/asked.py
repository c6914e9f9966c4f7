"""Reads the fields of a request strictly: a value that vLLM would convert is refused here.

vLLM's request models convert loosely (`"true"` is true, `"100"` is 100). A reservation must match
the work that vLLM does, so only the JSON types of the API pass.
"""

from collections.abc import Mapping

from msgspec import Struct

from extproc.types import ClientUsage, Value
from headgate.core.apis import FORM_APIS, Api
from headgate.core.contract import RequestKey
from headgate.core.errors import ApiError, Refusal


class Asked(Struct, frozen=True, gc=False):
    """The work that one request asks of its model.

    `max_tokens` bounds the output of each of the `n` choices for each of the `prompts`; None if
    only the context bounds it. `client_usage` is the usage that the client wants to see.
    """

    max_tokens: int | None
    n: int
    client_usage: ClientUsage
    prompts: int = 1


class RefusedError(Exception):
    """The request is refused; its client reads `error`."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


_MAX_CHOICES = 16384  # vLLM's VLLM_MAX_N_SEQUENCES
_COMPLETIONS_DEFAULT = 16  # the maximum that vLLM assumes for a completion without one

_CHOOSING = frozenset({Api.CHAT, Api.COMPLETIONS})
"""The APIs with `n` and `stream_options`; the others always carry usage in their streams."""
_STREAMING = _CHOOSING | {Api.RESPONSES, Api.MESSAGES}
_SEVERAL_PROMPTS = {
    Api.COMPLETIONS: RequestKey.PROMPTS,
    Api.CHAT_BATCH: RequestKey.CONVERSATIONS,
}
_OUTPUT_BOUNDS = {
    Api.CHAT: (RequestKey.MAX_COMPLETION_TOKENS, RequestKey.MAX_TOKENS),
    Api.CHAT_BATCH: (RequestKey.MAX_COMPLETION_TOKENS, RequestKey.MAX_TOKENS),
    Api.COMPLETIONS: (RequestKey.MAX_TOKENS,),
    Api.RESPONSES: (RequestKey.MAX_OUTPUT_TOKENS,),
    Api.MESSAGES: (RequestKey.MAX_TOKENS,),
}
"""The fields that bound an output. The first one that a body has counts."""
_CONTEXT = ", the context length of this model"
_PARAMS = {
    RequestKey.INCLUDE_USAGE: "stream_options.include_usage",
    RequestKey.CONTINUOUS_USAGE: "stream_options.continuous_usage_stats",
}


def hidden_field(values: Mapping[str, Value]) -> RefusedError:
    """The refusal of a string too long to be seen here: vLLM may read a number from it."""
    hidden = values[RequestKey.HIDDEN]
    return _invalid(str(hidden), f"`{hidden}` is a string of more than 8 KiB.")


def refuse_not_served(values: Mapping[str, Value]) -> None:
    """Raises RefusedError for a form field that is not served.

    In a JSON body such a field is taken out; a form is only patched in place.
    """
    name = str(values.get(RequestKey.PLATFORM) or "").partition(",")[0]
    if name:
        raise _invalid(name, f"`{name}` is not supported here; leave it out.")


def read_whole(value: Value | None) -> int | None:
    """A number that the request reader wrote; None if it wrote none, as older readers do not."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < 2**53 else None  # type: ignore[arg-type, operator]


def read_model_name(values: Mapping[str, Value]) -> str:
    """The `model` field. vLLM would use its base model if there is none; Headgate requires it.

    Raises RefusedError if it is missing or not a string.
    """
    name = values.get(RequestKey.MODEL)
    if name is None or name == "":
        raise _invalid(
            RequestKey.MODEL, "`model` is required: use a model that GET /v1/models lists."
        )
    if not isinstance(name, str):
        raise _invalid(RequestKey.MODEL, "`model` must be a string.")
    return name


def read_asked(
    api: Api, values: Mapping[str, Value], context_tokens: int, *, counts_audio: bool = False
) -> Asked:
    """Reads the fields of `api`; like vLLM it ignores fields that belong to another API.

    Usage in audio streams matters only if `counts_audio` is set: a flat price needs no usage.
    Raises RefusedError for the first field that has the wrong type or is out of bounds.
    """
    streams = api in _STREAMING and _boolean(values, RequestKey.STREAM)
    client_usage = ClientUsage.UNTOUCHED
    choices = 1
    if api in _CHOOSING:
        choices = _integer(values, RequestKey.N, 1, _MAX_CHOICES) or 1
        asked_usage = _client_usage(values)
        client_usage = asked_usage if streams else ClientUsage.UNTOUCHED
    if api in FORM_APIS and _boolean(values, RequestKey.STREAM) and counts_audio:
        client_usage = _client_usage(values)
    if api is Api.RESPONSES and _boolean(values, RequestKey.BACKGROUND):
        raise _invalid(
            RequestKey.BACKGROUND, "`background` is not supported here; leave it out or send false."
        )
    bound = _output_bound(api, values, context_tokens)
    return Asked(bound, choices, client_usage, _prompts(api, values))


def _prompts(api: Api, values: Mapping[str, Value]) -> int:
    """How many prompts there are; vLLM answers each of them."""
    key = _SEVERAL_PROMPTS.get(api)
    count = None if key is None else values.get(key)
    return int(count) if isinstance(count, float | int) and count > 1 else 1


def _client_usage(values: Mapping[str, Value]) -> ClientUsage:
    """vLLM sends no continuous usage without `include_usage`."""
    final = _boolean(values, RequestKey.INCLUDE_USAGE)
    continuous = _boolean(values, RequestKey.CONTINUOUS_USAGE)
    if not final:
        return ClientUsage.NONE
    return ClientUsage.CONTINUOUS if continuous else ClientUsage.FINAL


def _output_bound(api: Api, values: Mapping[str, Value], context_tokens: int) -> int | None:
    """The field that bounds the output in this API, as vLLM picks it."""
    names = _OUTPUT_BOUNDS.get(api)
    if names is None:
        return 0
    low = 0 if api is Api.COMPLETIONS else 1  # 0 only echoes the prompt.
    bound = None
    for name in names:
        if values.get(name) is not None:
            number = _integer(values, name, low, context_tokens, _CONTEXT)
            bound = number if bound is None else bound
    if bound is None and api is Api.COMPLETIONS:
        return min(_COMPLETIONS_DEFAULT, context_tokens)
    return bound


def _invalid(param: str, message: str) -> RefusedError:
    return RefusedError(ApiError(Refusal.BAD_REQUEST, message, param))


def _boolean(values: Mapping[str, Value], key: RequestKey) -> bool:
    value = values.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        param = _PARAMS.get(key, key)
        raise _invalid(param, f"`{param}` must be true or false.")
    return value


def _integer(
    values: Mapping[str, Value], key: RequestKey, low: int, high: int, why: str = ""
) -> int | None:
    value = values.get(key)
    if value is None:
        return None
    # The remainder of infinity and NaN is NaN, which differs from 0 as well.
    if isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0:
        number = int(value)
        if low <= number <= high:
            return number
    raise _invalid(key, f"`{key}` must be an integer from {low} to {high}{why}.")
