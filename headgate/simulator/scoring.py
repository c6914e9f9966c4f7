"""/v1/score and /v1/rerank: the request, scores made of a digest, and their usage.

A real server has these routes only with a model that scores.
"""

from hashlib import blake2b
from typing import Any

from headgate.simulator import prompts, usage
from headgate.simulator.fields import Fields
from headgate.simulator.prompts import count_tokens
from headgate.simulator.requests import InferenceRequest
from headgate.simulator.vllm_errors import bad_request, invalid_body, to_json

_FIRST = ("queries", "text_1", "data_1")
_SECOND = ("documents", "items", "text_2", "data_2")


def read_score(body: Fields) -> InferenceRequest:
    """POST /v1/score: one text, or as many as there are others, against each of the others."""
    first, second = _texts(body, _FIRST), _texts(body, _SECOND)
    if len(first) not in (1, len(second)):
        raise bad_request("Input lengths must be either 1:1, 1:N or N:N")
    firsts = first * len(second) if len(first) == 1 else first
    return _request(body, [text + other for text, other in zip(firsts, second, strict=True)])


def read_rerank(body: Fields) -> InferenceRequest:
    """POST /v1/rerank: one query against each document."""
    query = _texts(body, ("query",))[0]
    documents = _texts(body, ("documents",))
    top_n = body.integer("top_n") or len(documents)
    return _request(
        body, [query + document for document in documents], documents=documents, top_n=top_n
    )


def score_body(answer_id: str, created_s: int, model: str, request: InferenceRequest) -> bytes:
    """The answer: a score for each pair."""
    data = [
        {"index": index, "object": "score", "score": _score(pair)}
        for index, pair in enumerate(request.prompts)
    ]
    counted = usage.counts(sum(count_tokens(pair) for pair in request.prompts), 0)
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    head = {"id": f"score-{answer_id}", "object": "list", "created": created_s, "model": model}
    return to_json(head | {"data": data, "usage": counted | details}).encode()


def rerank_body(answer_id: str, _: int, model: str, request: InferenceRequest) -> bytes:
    """The answer: the documents, the best first. Its usage names no completion."""
    scored = [
        (_score(pair), index, text)
        for index, (text, pair) in enumerate(
            zip(request.options["documents"], request.prompts, strict=True)
        )
    ]
    results = [
        {"index": index, "document": {"text": text}, "relevance_score": score}
        for score, index, text in sorted(scored, reverse=True)
    ]
    prompt = sum(count_tokens(pair) for pair in request.prompts)
    body = {
        "id": f"rerank-{answer_id}",
        "model": model,
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
        "results": results[: request.options["top_n"]],
    }
    return to_json(body).encode()


def _request(body: Fields, pairs: list[str], **options: Any) -> InferenceRequest:
    rendered = tuple(prompts.from_text(pair) for pair in pairs)
    return InferenceRequest(
        model=body.text("model") or "",
        prompts=rendered,
        cache_salt=body.cache_salt(),
        options=options,
    )


def _texts(body: Fields, names: tuple[str, ...]) -> list[str]:
    """The first of these members that is there: a text or a list of texts."""
    name = next((name for name in names if name in body), names[0])
    value = body.required(name)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise invalid_body("string_type", body.path(name), "Input should be a valid string")
    return texts


def _score(pair: bytes) -> float:
    return int.from_bytes(blake2b(pair, digest_size=2).digest(), "big") / 65536
