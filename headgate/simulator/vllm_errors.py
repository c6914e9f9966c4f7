"""vLLM's error answers: statuses, types and the two shapes.

From vLLM 0.32 `entrypoints/serve/exception_handling` and `anthropic/api_router.py`.
"""

import json
from http import HTTPStatus

BODY_INVALID = "Bad Request"
"""The type of errors that FastAPI finds in a body. They keep OpenAI's shape even below
/v1/messages, as they arise before the endpoint runs."""


class VllmError(Exception):
    """A request that is answered with an error object."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def openai_body(self) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}`, code being the HTTP status."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return to_json({"error": error}).encode()

    def anthropic_body(self) -> bytes:
        """`{"type": "error", "error": {"type", "message"}}`; 0.32 keeps vLLM's own type."""
        if self.kind == BODY_INVALID:
            return self.openai_body()
        error = {"type": self.kind, "message": self.message}
        return to_json({"type": "error", "error": error}).encode()


def invalid_body(kind: str, field: str, message: str) -> VllmError:
    """A body that does not fit its model: 400 (not 422), worded like pydantic's findings."""
    finding = {"type": kind, "loc": field, "msg": message}
    return VllmError(400, BODY_INVALID, f"1 validation error:\n  {finding}", field)


def bad_request(message: str, param: str | None = None, value: object = None) -> VllmError:
    """A value that vLLM itself refuses: 400; the message repeats the parameter and the value."""
    extras = [f"parameter={param}"] if param else []
    extras += [f"value={value}"] if value is not None else []
    text = f"{message} ({', '.join(extras)})" if extras else message
    return VllmError(400, "BadRequestError", text, param)


def unknown_model(name: str, served: tuple[str, ...]) -> VllmError:
    """404 for a model or adapter that is not there; names the base models, never adapters."""
    message = f"The model `{name}` does not exist. Valid aliases: {', '.join(served)}."
    return VllmError(404, "NotFoundError", message, "model")


def engine_dead() -> VllmError:
    """500: what every request gets once the engine has died."""
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return VllmError(500, "InternalServerError", message)


def forced_status(status: int) -> VllmError:
    """The error that `status=` of `x-simulate` asks for, with vLLM's type where it has one."""
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return engine_dead()
    phrase = next((known.phrase for known in HTTPStatus if known == status), "Unknown Status")
    kind = {400: "BadRequestError", 404: "NotFoundError", 501: "NotImplementedError"}
    return VllmError(status, kind.get(status, phrase), f"Simulated failure: {phrase}")


def to_json(value: object) -> str:
    """JSON as starlette and pydantic write it: compact, UTF-8, keys in their order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
