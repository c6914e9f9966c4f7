"""/v1/audio/transcriptions and /v1/audio/translations: the form, the answer and its stream.

A real server has these routes only with a model that hears. No real answer was seen.

vLLM's source (`entrypoints/speech_to_text`) gives the fields, the formats and the ids. It gives
the members of answers and chunks in their order, and those that a chunk leaves out. Options for
usage need a stream, and `--enable-force-include-usage` adds the last usage alone.

Invented are the length of the audio, as nothing is decoded, and the words of FastAPI's errors.
"""

from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from headgate.simulator import prompts, usage
from headgate.simulator.fields import Fields
from headgate.simulator.generate import GeneratedAnswer
from headgate.simulator.requests import InferenceRequest
from headgate.simulator.streams import DONE, Times, data_event, error_events
from headgate.simulator.vllm_errors import (
    BODY_INVALID,
    VllmError,
    bad_request,
    invalid_body,
    to_json,
)

_BYTES_A_SECOND = 32_000
"""Any content counts as 16 kHz of 16 bits."""
_PROMPT_TOKENS = 4
"""The prompt of Whisper: start, language, task, no timestamps."""
_TOKENS_A_SECOND = 50
_USAGE_FIELDS = ("stream_include_usage", "stream_continuous_usage_stats")
_FORMATS = ("text", "json", "verbose_json")


async def read_form(content_type: str, body: bytes) -> Fields:
    """The fields of a multipart form, the last of each name; a file is its size in bytes.

    The parser is Starlette's, as in vLLM. Raises VllmError 400 for anything else.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise invalid_body("missing", "body.file", "Field required")

    async def chunks() -> Any:
        yield body
        yield b""

    try:
        form = await MultiPartParser(Headers({"content-type": content_type}), chunks()).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise VllmError(400, BODY_INVALID, "There was an error parsing the body") from error
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        values[name] = value.size if isinstance(value, UploadFile) else value
    await form.close()
    return Fields(values)


def read_audio(body: Fields) -> InferenceRequest:
    """POST /v1/audio/transcriptions, and translations alike."""
    size_bytes = body.raw("file")
    if not isinstance(size_bytes, int):
        raise invalid_body("missing", "body.file", "Field required")
    form = str(body.raw("response_format") or "json")
    if form not in _FORMATS:
        raise bad_request("Currently only support response_format `text`, `json` or `verbose_json`")
    stream = body.flag("stream")
    # vLLM looks before it converts, so that the text `false` counts as set here.
    asked = next((name for name in _USAGE_FIELDS if body.raw(name)), None)
    if asked is not None and not body.raw("stream"):
        raise bad_request("Stream options can only be defined when `stream=True`.", asked)
    if stream and form == "verbose_json":
        raise bad_request("verbose_json format doesn't support streaming case")
    seconds = -(-size_bytes // _BYTES_A_SECOND)
    return InferenceRequest(
        model=str(body.raw("model") or ""),
        prompts=(prompts.from_ids([0] * (_PROMPT_TOKENS + _TOKENS_A_SECOND * seconds)),),
        max_tokens=body.integer("max_completion_tokens"),
        max_tokens_field="max_completion_tokens",
        stream=stream,
        include_usage=body.flag("stream_include_usage"),
        continuous_usage=body.flag("stream_continuous_usage_stats"),
        options={"seconds": seconds, "format": form, "name": body.raw("language")},
    )


class AudioWriter:
    """Writes one answer. Only transcriptions have usage, by the length of the audio."""

    def __init__(
        self, answer: GeneratedAnswer, request: InferenceRequest, *, translates: bool
    ) -> None:
        self._answer = answer
        self._options = request.options
        self._translates = translates
        self._continuous = request.continuous_usage  # which no flag forces here
        task = "translate" if translates else "transcribe"
        kind = "translation.chunk" if translates else "transcription.chunk"
        self._head = {
            "id": f"{task}-{answer.id}",
            "object": kind,
            "created": answer.created_s,
            "model": answer.model,
        }

    def body(self, _: Times | None) -> bytes:
        """The answer that is not streamed."""
        text = self._answer.choices[0].text
        seconds = self._options["seconds"]
        if self._options["format"] == "verbose_json":
            spoken = {"duration": str(seconds), "language": self._options["name"] or "en"}
            return to_json(spoken | {"text": text, "segments": [], "words": None}).encode()
        if self._translates:
            return to_json({"text": text}).encode()
        return to_json({"text": text, "usage": {"type": "duration", "seconds": seconds}}).encode()

    def opening(self) -> list[bytes]:
        """Nothing comes before the first token."""
        return []

    def step(self, position: int) -> list[bytes]:
        """The event of one token."""
        generated = self._answer.choices[0]
        last = position == generated.tokens - 1
        choice: dict[str, Any] = {"delta": {"content": generated.piece(position)}}
        if last:
            choice |= {"finish_reason": generated.finish_reason, "stop_reason": None}
        more: dict[str, Any] = {}
        if self._continuous and self._answer.include_usage:
            more["usage"] = usage.counts(generated.prompt_tokens, position + 1)
        return [data_event(to_json(self._head | {"choices": [choice]} | more))]

    def closing(self) -> list[bytes]:
        """The usage chunk, where it is asked for, and the end mark."""
        if not self._answer.include_usage:
            return [DONE]
        final = {"choices": [], "usage": usage.total(self._answer)}
        return [data_event(to_json(self._head | final)), DONE]

    def broken(self) -> list[bytes] | None:
        """How a stream ends when the engine dies."""
        return error_events()
