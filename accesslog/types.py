"""One request as Envoy logs it, and as Headgate records it. Plain values, no logic.

They are msgspec's structs: a frozen dataclass of this size takes ten times as long to make. They
hold no cycles, so the garbage collector leaves them alone.
"""

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct, field

from headgate.core.settlement import Estimate, Source, Usage


class LogEntry(Struct, frozen=True, kw_only=True, gc=False):
    """The fields of one `envoy.data.accesslog.v3.HTTPAccessLogEntry` that Headgate reads.

    Texts are as Envoy sent them: of any length, and empty if there is no value. `duration_s` is
    None until the request has ended. `start_ns` counts from the Unix epoch. `status` is the
    client's status, None if the client got no answer. `sent`: the first attempt to send the request
    to an upstream succeeded. `flags` are the short names of `%RESPONSE_FLAGS%`.

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
    request_header_bytes: int = 0
    request_bytes: int = 0
    response_header_bytes: int = 0
    response_bytes: int = 0
    caller: Mapping[str, str] = field(default_factory=dict)
    request: Mapping[str, str | bool] = field(default_factory=dict)
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

    - `time` is the request's start, RFC 3339 in UTC.
    - `model`, `base` and `adapter` are the policy's names, for an admitted request.
    - `version` is the version that answered, or else the one that was chosen.
    - `requested_model` is the model in the client's body.
    - `choices` is the number of answers asked for. vLLM's own counters count the prompt for each.
    - `status` is the client's status, `upstream_status` is vLLM's.
    - `request_bytes` and `response_bytes` are the sizes of the bodies.
    - `prompt_tokens` and `completion_tokens` are the charged ones, and `source` says why. All three
      are None for a request that was refused before admission.
    - `cached_tokens` are a part of the prompt's, `reasoning_tokens` of the completion's.
    - `audio_seconds` is the length of the audio, if it has a price and vLLM reported it.
    - `estimated_tokens` were reserved at admission, `estimated_prompt_tokens` of them for the
      prompt.
    - `cost` is in the currency of the prices, None if the model is not in the policy.
    - `ttft_s` is the time from the start to the first output that passed the proxy.
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
