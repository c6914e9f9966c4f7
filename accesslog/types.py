"""One request as Envoy logs it, and as Headgate records it. Plain values, no logic.

They are msgspec's structs: a frozen dataclass of this size takes ten times as long to make. They
hold no cycles, so the garbage collector leaves them alone.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from msgspec import Struct, field

from headgate.core.settlement import Estimate, Source, Usage

SCHEMA = 2
"""The version of a usage record's fields. A field that is only added does not change it."""


class Ended(StrEnum):
    """How the answer to a request ended."""

    COMPLETE = "complete"
    CLIENT_LEFT = "client_left"
    """The client disconnected before the answer was complete."""
    UPSTREAM_BROKE = "upstream_broke"
    """The upstream could not be reached, broke off, or reported an error within a stream."""


class LogEntry(Struct, frozen=True, kw_only=True, gc=False):
    """The fields of one `envoy.data.accesslog.v3.HTTPAccessLogEntry` that Headgate reads.

    Texts are as Envoy sent them: of any length, and empty if there is no value. `duration_s` is
    None until the request has ended. `start_ns` counts from the Unix epoch. `status` is the
    client's status, None if the client got no answer. `sent`: the first attempt to send the request
    to an upstream succeeded. `flags` are the short names of `%RESPONSE_FLAGS%`.

    `upstream_host` is the address and port of the pod that was asked last, `attempts` the number of
    tries. `upstream_tx_s` and `upstream_rx_s` are the seconds until the upstream was sent the first
    byte, and until it sent its first. Proxies with an older configuration send no `traceparent`.

    The last five are the namespaces of `headgate.core.contract.Namespace`. The values of `request`
    come from the client, the others from Headgate.
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
    upstream_host: str = ""
    upstream_tx_s: float | None = None
    upstream_rx_s: float | None = None
    attempts: int | None = None
    traceparent: str = ""
    request_header_bytes: int = 0
    request_bytes: int = 0
    response_header_bytes: int = 0
    response_bytes: int = 0
    caller: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, str | bool | float] = field(default_factory=dict)
    admission: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, str] = field(default_factory=dict)


class OpenReservation(Struct, frozen=True, kw_only=True, gc=False):
    """The reservation of a finished request, to settle with the usage of its answer.

    `held_by` is the replica that holds it in slices of limits, or empty.
    """

    id: str
    tenant: str
    estimate: Estimate
    usage: Usage
    held_by: str = ""


class UsageRecord(Struct, frozen=True, kw_only=True, gc=False):
    """One finished request: who, what, when, from where, how much. None for an unknown value.

    - `schema` is the version of these fields: 2. Records without it are of version 1.
    - `time` is the request's start, RFC 3339 in UTC.
    - `request_id` identifies the record.
    - `trace_id` is that of the client's W3C trace context.
    - `model`, `base` and `adapter` are the policy's names, for an admitted request.
    - `version` is the version that answered, or else the one that was chosen.
    - `requested_model` is the model in the client's body.
    - `choices` is the number of answers asked for. vLLM's own counters count the prompt for each.
    - `status` is the client's status, `upstream_status` is vLLM's, None if vLLM gave no answer.
    - `ended` is how the answer ended, None if no upstream was asked.
    - `limit` is the limit that refused the request, by its id. The next four say how full it was.
    - `pod` is the address of the upstream that was asked last, `attempts` the number of tries.
    - `replica` is the machine or pod of the services that wrote the record.
    - `request_bytes` and `response_bytes` are the sizes of the bodies.
    - `prompt_tokens` and `completion_tokens` are the charged ones, and `source` says why. All three
      are None for a request that was refused before admission.
    - `cached_tokens` are a part of the prompt's, `reasoning_tokens` of the completion's.
    - `cache` is `hit` for an answer from the answer cache. Its tokens are those of the kept answer.
    - `audio_seconds` is the length of audio that is charged by its length.
    - `estimated_tokens` were reserved at admission, `estimated_prompt_tokens` of them for the
      prompt.
    - `cost` is in the currency of the prices, None if the model is not in the policy.
    - `price_version` names the prices of `cost`, None without any.
    - `max_tokens` is the bound of the output that the client asked for.
    - `to_upstream_s` is the time from the start to the first byte that the upstream was sent,
      `upstream_first_byte_s` to the first that it sent.
    - `ttft_s` is the time from the start to the first output that passed the proxy.
      Of a whole answer it is the time to the first token, if vLLM told it.
    - `token_interval_s` is the mean time between two tokens.
    """

    schema: int = SCHEMA
    time: str | None
    request_id: str | None
    trace_id: str | None
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
    max_tokens: int | None
    status: int | None
    upstream_status: int | None
    ended: Ended | None
    limit: str | None
    limit_count: str | None
    limit_most: int | None
    limit_used: int | None
    limit_asked: int | None
    pod: str | None
    attempts: int | None
    replica: str | None
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
    price_version: str | None
    source: Source | None
    to_upstream_s: float | None
    upstream_first_byte_s: float | None
    ttft_s: float | None
    token_interval_s: float | None
    duration_s: float
    cache: str | None = None
