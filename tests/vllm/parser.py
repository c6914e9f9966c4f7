"""vLLM's HTTP front end without an engine: its own routes answer what they read of a request.

Runs with the Python of a vLLM installation, not with ours: `python tests/vllm/parser.py`. It
prints `parser ready on URL` and serves until it is ended. The routes, their checks and their
request models are vLLM's; only the handlers behind them are replaced.
"""

import argparse
import socket
import sys
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from vllm.entrypoints.anthropic import api_router as messages
from vllm.entrypoints.openai.chat_completion import api_router as chat
from vllm.entrypoints.openai.completion import api_router as completions
from vllm.entrypoints.openai.responses import api_router as responses
from vllm.entrypoints.pooling.embed import api_router as embeddings
from vllm.entrypoints.pooling.scoring import api_router as scoring
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.tokenize import api_router as tokenize
from vllm.renderers.inputs.preprocess import prompt_to_seq

HANDLERS = (
    "openai_serving_chat",
    "openai_serving_chat_batch",
    "openai_serving_completion",
    "openai_serving_responses",
    "anthropic_serving_messages",
    "serving_embedding",
    "serving_scores",
    "serving_tokenization",
)
PLATFORM = (
    "cache_salt",
    "ec_transfer_params",
    "kv_transfer_params",
    "priority",
    "request_id",
    "session_id",
    "vllm_xargs",
)


def what_was_read(request: Any) -> dict[str, Any]:
    """The fields that decide what a request costs; `set` are those of the platform's."""

    def field(name: str) -> Any:
        return getattr(request, name, None) if name in type(request).model_fields else None

    bounds = [field(name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")]
    prompts = 0
    for name in ("prompt", "prompt_embeds"):
        given = field(name)
        prompts += len(prompt_to_seq(given)) if given and name in request.model_fields_set else 0
    conversation = field("messages")
    if conversation and isinstance(conversation[0], list):
        prompts = len(conversation)
    choices = field("n")
    return {
        "model": field("model"),
        "stream": bool(field("stream")),
        "n": 1 if choices is None else choices,
        "max": next((bound for bound in bounds if bound is not None), None),
        "prompts": max(1, prompts),
        "background": bool(field("background")),
        "set": sorted(
            name
            for name in PLATFORM
            if name in request.model_fields_set and field(name) is not None
        ),
        "cache_salt": field("cache_salt"),
    }


class Handler:
    """Stands for every serving object: whatever is asked of it, it keeps the parsed request."""

    async def __call__(self, request: Any, raw_request: Request) -> Any:
        raw_request.state.seen.append(what_was_read(request))
        error = ErrorInfo(message="parsed", type="parsed", code=HTTPStatus.IM_A_TEAPOT.value)
        return ErrorResponse(error=error)

    def __getattr__(self, _: str) -> Any:
        return self.__call__


class Scores(Handler):
    """Their routes pass a response on as it is."""

    async def __call__(self, request: Any, raw_request: Request) -> Any:
        await super().__call__(request, raw_request)
        return JSONResponse({})


def application() -> FastAPI:
    """vLLM's routes and error handlers; 200 with what was read, or 400 where vLLM refuses."""
    app = FastAPI()
    for module in (messages, chat, completions, responses, embeddings, scoring, tokenize):
        app.include_router(module.router)
    init_exception_handler(app)
    for name in HANDLERS:
        setattr(app.state, name, Scores() if name.startswith("serving_") else Handler())

    @app.middleware("http")
    async def show(request: Request, call_next: Any) -> Any:
        request.state.seen = []
        try:
            await call_next(request)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if request.state.seen:
            return JSONResponse(request.state.seen[0])
        return JSONResponse({"refused": True}, HTTPStatus.BAD_REQUEST)

    return app


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"parser ready on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(application(), log_level="error")).run([listener])


if __name__ == "__main__":
    main()
