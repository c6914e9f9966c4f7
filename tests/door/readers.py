"""vLLM's reading of a request: by its own code if it is installed, else by the simulator's."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from headgate.simulator import requests, scoring
from headgate.simulator.fields import Fields, read_json
from headgate.simulator.requests import InferenceRequest
from headgate.simulator.vllm_errors import VllmError
from tests.box import environment
from tests.patience import PATIENCE_S

PARSER = Path(__file__).parents[1] / "vllm" / "parser.py"


@dataclass(frozen=True)
class Reading:
    """The values of one request; `max` bounds each of `n` answers to each of the prompts."""

    model: str
    stream: bool = False
    n: int = 1
    max: int | None = None
    prompts: int = 1
    cache_salt: str | None = None
    set: tuple[str, ...] = ()
    """The platform's fields in the request; the simulator does not report them."""


Reader = Callable[[str, str, bytes], Reading | None]
"""Path, content type, body; None if vLLM refuses the request."""

_READERS: dict[str, Callable[[Fields], InferenceRequest]] = {
    "/v1/chat/completions": requests.read_chat,
    "/v1/chat/completions/batch": requests.read_chat_batch,
    "/v1/completions": requests.read_completions,
    "/v1/responses": requests.read_responses,
    "/v1/messages": requests.read_messages,
    "/v1/messages/count_tokens": requests.read_count_tokens,
    "/v1/embeddings": requests.read_embeddings,
    "/v1/score": scoring.read_score,
    "/v1/rerank": scoring.read_rerank,
    "/v2/rerank": scoring.read_rerank,
    "/tokenize": requests.read_tokenize,
}


def simulator_reads(path: str, content_type: str, body: bytes) -> Reading | None:
    """As the simulator reads it."""
    try:
        ask = _READERS[path](read_json(content_type, body))
    except (VllmError, RecursionError):
        return None
    several = path in ("/v1/completions", "/v1/chat/completions/batch")
    return Reading(
        model=ask.model,
        stream=ask.stream,
        n=ask.n,
        max=ask.max_tokens,
        prompts=len(ask.prompts) if several else 1,
        cache_salt=ask.cache_salt or None,
    )


@contextmanager
def vllm_reader(python: str, folder: Path) -> Iterator[Reader]:
    """vLLM's own routes, started with the Python of its installation."""
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with open(folder / "parser.log", "w") as log:
        process = subprocess.Popen(
            [python, str(PARSER)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env={**environment(), **offline},
        )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        assert ready.startswith("parser ready on "), (folder / "parser.log").read_text()
        with httpx.Client(base_url=ready.split()[-1], timeout=PATIENCE_S) as client:
            yield lambda path, kind, body: _ask(client, path, kind, body)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        process.stdout.close()


def _ask(client: httpx.Client, path: str, content_type: str, body: bytes) -> Reading | None:
    answer = client.post(path, content=body, headers={"content-type": content_type})
    if answer.status_code != 200:
        return None
    read = answer.json()
    return Reading(
        model=read["model"] or "",
        stream=read["stream"],
        n=read["n"],
        max=read["max"],
        prompts=read["prompts"],
        cache_salt=read["cache_salt"],
        set=tuple(read["set"]),
    )
