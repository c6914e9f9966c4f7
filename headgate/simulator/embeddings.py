"""/v1/embeddings: vectors made of a digest of the input, and their usage."""

import base64
import struct
from hashlib import blake2b

from headgate.simulator import usage
from headgate.simulator.prompts import count_tokens
from headgate.simulator.requests import InferenceRequest
from headgate.simulator.vllm_errors import to_json

_DIMENSIONS = 8


def embeddings_body(answer_id: str, created_s: int, model: str, request: InferenceRequest) -> bytes:
    """The answer; the option `encoding` is float or base64 (little-endian float32)."""
    inputs, encoding = request.prompts, request.options["encoding"]
    counted = usage.counts(sum(count_tokens(prompt) for prompt in inputs), 0)
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    body = {
        "id": f"embd-{answer_id}",
        "object": "list",
        "created": created_s,
        "model": model,
        "data": [
            {"index": index, "object": "embedding", "embedding": _encoded(prompt, encoding)}
            for index, prompt in enumerate(inputs)
        ],
        "usage": counted | details,
    }
    return to_json(body).encode()


def _encoded(prompt: bytes, encoding: str) -> list[float] | str:
    numbers = struct.unpack(
        f"<{_DIMENSIONS}h", blake2b(prompt, digest_size=2 * _DIMENSIONS).digest()
    )
    vector = [number / 32768 for number in numbers]
    if encoding == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{_DIMENSIONS}f", *vector)).decode()
