"""Answers and places as the tests of the cache use them."""

from extproc.cache.answers import Keep, KeptAnswer
from extproc.types import Caching
from headgate.core.apis import Api
from headgate.core.contract import AdmissionKey

JSON_ANSWER = (
    b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)
STREAM_ANSWER = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
)
BODY = b'{"model":"tiny","temperature":0,"messages":[]}'
ADMISSION = {AdmissionKey.MODEL: "tiny", AdmissionKey.BASE: "tiny"}


def caching(
    tenant: str = "acme",
    *,
    ttl_s: int = 600,
    max_bytes: int = 10_000,
    tenant_max_bytes: int = 100_000,
    max_age_s: int | None = None,
) -> Caching:
    return Caching(
        path="/v1/chat/completions",
        api=Api.CHAT,
        tenant=tenant,
        ttl_s=ttl_s,
        max_bytes=max_bytes,
        tenant_max_bytes=tenant_max_bytes,
        max_age_s=max_age_s,
    )


def kept_answer(body: bytes = JSON_ANSWER, stored_s: float = 1000.0) -> KeptAnswer:
    return KeptAnswer(stored_s, "application/json", 3, 2, body)


def keep(
    key: str = "aa",
    *,
    tenant: str = "acme",
    generation: str = "",
    body: bytes = JSON_ANSWER,
    ttl_s: int = 600,
    max_bytes: int = 100_000,
) -> Keep:
    return Keep(
        tenant=tenant,
        key=key,
        generation=generation,
        answer=kept_answer(body),
        ttl_s=ttl_s,
        max_bytes=max_bytes,
    )
