"""A record as readers of the ledger see it: one row of the view `headgate.usage_line`."""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import fields

from headgate.ledger.outcomes import RESULT


class UsageLine(Struct, frozen=True, kw_only=True):
    """The fields of `docs/records.md`, with the end of the request and the labels of its key.

    `cost` is decimal text, so that no reader makes a float of it. `user` is the name that the
    person has now, which may be a pseudonym. `result` says for people how the request went, as one
    of RESULTS.
    """

    time: datetime
    ended_at: datetime
    request_id: str
    trace_id: str | None
    reservation: str | None
    tenant: str | None
    user: str | None
    key: str | None
    labels: dict[str, str] | None
    ip: str | None
    user_agent: str | None
    method: str | None
    path: str | None
    api: str | None
    requested_model: str | None
    model: str | None
    base: str | None
    adapter: str | None
    version: str | None
    stream: bool | None
    choices: int | None
    max_tokens: int | None
    status: int | None
    upstream_status: int | None
    ended: str | None
    result: str
    limit: str | None
    limit_count: str | None
    limit_most: int | None
    limit_used: int | None
    limit_asked: int | None
    pod: str | None
    attempts: int | None
    replica: str | None
    flags: list[str]
    details: str | None
    request_bytes: int | None
    response_bytes: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    audio_seconds: int | None
    estimated_tokens: int | None
    estimated_prompt_tokens: int | None
    cost: str | None
    price_version: str | None
    source: str | None
    to_upstream_s: float | None
    upstream_first_byte_s: float | None
    ttft_s: float | None
    token_interval_s: float | None
    duration_s: float


FIELDS = tuple(field.name for field in fields(UsageLine))
_MADE = {
    "time": "started_at",
    "ip": "host(ip)",
    "result": RESULT,
    "cost": "trim_scale(cost_nanos::numeric / 1000000000)::text",
}


def _selected(name: str) -> str:
    if name.endswith("_s"):
        return f"{name.removesuffix('_s')}_us / 1000000.0::float8"
    return _MADE.get(name, f'"{name}"')


SELECT = f"select {', '.join(map(_selected, FIELDS))} from headgate.usage_line"  # noqa: S608 (ours)
