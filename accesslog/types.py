"""What Envoy tells of one request, and what Headgate keeps of it. Plain values, no logic."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from headgate.core.settlement import Estimate, Source, Usage


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One `envoy.data.accesslog.v3.HTTPAccessLogEntry`, as far as Headgate reads it.

    Texts are as Envoy sent them: of any length, empty where there was nothing. `duration_s`
    is None until the request has ended. `start_ns` counts from the Unix epoch. `status` is
    what the client got, None when it got no answer. `sent`: the request
    went out to an upstream at the first attempt. `flags` are the short names of
    `%RESPONSE_FLAGS%`. The last five are the namespaces of `headgate.core.contract.Namespace`;
    `request` is the client's word, the others are ours.
    """

    start_ns: int | None = None
    duration_s: float | None = None
    request_id: str = ""
    ip: str = ""
    user_agent: str = ""
    method: str = ""
    path: str = ""
    status: int | None = None
    sent: bool = False
    flags: tuple[str, ...] = ()
    details: str = ""
    upstream_cluster: str = ""
    request_header_bytes: int = 0
    request_bytes: int = 0
    response_header_bytes: int = 0
    response_bytes: int = 0
    caller: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, str | bool] = field(default_factory=dict)
    admission: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """What an admitted request holds until it is settled, and what was seen of its answer.

    `held_by` is for the settlement: the replica that holds it in slices, or empty.
    """

    reservation: str
    tenant: str
    estimate: Estimate
    usage: Usage
    held_by: str = ""


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One finished request: who, what, when, from where, how much. None where it is not known.

    `time` is the start, RFC 3339 in UTC. `model`, `base` and `adapter` are the policy's
    names of an admitted request; `version` is the one that answered, else the one that was
    chosen; `requested_model` is what the client's body said, `choices` how many answers it asked
    for (vLLM's own counters count the prompt once for each). `status` is what the client got,
    `upstream_status` what vLLM answered. `request_bytes` and `response_bytes` are the bodies. The
    prompt and completion tokens are those charged, `source` says why, both None for a request
    that was refused before it was admitted; `cached_tokens` are a part of the prompt's,
    `reasoning_tokens` of the completion's; `audio_seconds` is how long the audio was, where its
    seconds have a price and vLLM told them; `estimated_tokens` were held at admission,
    `estimated_prompt_tokens` of them for the prompt. `cost` is in the currency of the prices,
    None where the model is not in the policy. `ttft_s` runs from the start to the first output
    that passed the proxy.
    """

    time: str | None
    request_id: str | None
    reservation: str | None
    tenant: str | None
    user: str | None
    key: str | None
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
    status: int | None
    upstream_status: int | None
    flags: tuple[str, ...]
    details: str | None
    request_header_bytes: int
    request_bytes: int
    response_header_bytes: int
    response_bytes: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    audio_seconds: int | None
    estimated_tokens: int | None
    estimated_prompt_tokens: int | None
    cost: Decimal | None
    source: Source | None
    ttft_s: float | None
    duration_s: float
