"""The wire contract: the names that Envoy's filters and our services agree on.

The filter configuration (`dataplane/`), the hooks and the access log reader all take
them from here, so that a name stands once. Every value in dynamic metadata is a string,
as Envoy's rate-limit actions read nothing else; only `Request` keeps the types of JSON.
"""

from collections.abc import Mapping
from enum import StrEnum

HEADER_PREFIX = "x-headgate-"


class Namespace(StrEnum):
    """Namespaces of Envoy's dynamic metadata, in the order in which they are written."""

    CALLER = "envoy.filters.http.ext_authz"
    REQUEST = "headgate.request"
    ADMISSION = "headgate.admission"
    LIMITS = "envoy.filters.http.ratelimit"
    USAGE = "headgate.usage"


class CallerKey(StrEnum):
    """`Namespace.CALLER`: what ext_authz says of the caller."""

    TENANT = "tenant"
    USER = "user"
    KEY = "key"
    RECORD = "record"
    """`RECORD_NO` for a request that the access log leaves out; else absent."""


RECORD_YES, RECORD_NO = "yes", "no"


class RequestKey(StrEnum):
    """`Namespace.REQUEST`: what json_to_metadata and the request reader saw in the body."""

    BODY = "body"
    """`BODY_READ`, `BODY_FORM`, `BODY_PARSED` or `BODY_UNREADABLE`; absent when no body came."""
    MODEL = "model"
    MODEL_AT = "model_at"
    """Of a form: where the model's value begins in the body, in bytes from 0."""
    INCLUDE_USAGE_AT = "include_usage_at"
    CONTINUOUS_USAGE_AT = "continuous_usage_at"
    """Of a form: where the values of these two begin; absent where the fields are."""
    STREAM = "stream"
    INCLUDE_USAGE = "include_usage"
    CONTINUOUS_USAGE = "continuous_usage"
    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    N = "n"
    PROMPT_CACHE_KEY = "prompt_cache_key"
    BACKGROUND = "background"
    HIDDEN = "hidden"
    """A field that decides what a request costs, with a string too long for json_to_metadata."""
    PLATFORM = "platform"
    """Those of `PLATFORM_FIELDS` that the client set, joined by commas."""
    PROMPTS = "prompts"
    """How many prompts a completion has; absent for one."""
    CONVERSATIONS = "conversations"
    """How many conversations a batch of chats has; absent for one."""


BODY_PARSED = "parsed"
"""The body is JSON; the request reader has not come to its end."""
BODY_READ = "read"
"""The body is a JSON object, and all of it that matters is in the metadata."""
BODY_FORM = "form"
"""The body is a multipart form, and all of it that matters is in the metadata."""
BODY_UNREADABLE = "unreadable"
"""The body is neither a JSON object that is called JSON, nor a form where one belongs."""

CACHE_SALT = "cache_salt"
PLATFORM_FIELDS = (
    CACHE_SALT,
    "ec_transfer_params",
    "kv_transfer_params",
    "priority",
    "request_id",
    "session_id",
    "vllm_xargs",
)
"""Body fields of vLLM that a client must not set: they change scheduling for others, steer the
transfer of caches, or take another's name. They are taken out; the salt is replaced."""


class AdmissionKey(StrEnum):
    """`Namespace.ADMISSION`: what ext_proc decided; also the entries of the reserve descriptor."""

    RESERVATION = "reservation"
    TENANT = "tenant"
    USER = "user"
    KEY = "key"
    MODEL = "model"
    BASE = "base"
    ADAPTER = "adapter"
    VERSION = "version"
    """The version that was chosen; absent where the policy names none."""
    API = "api"
    ESTIMATE = "estimate"
    """Tokens to reserve: prompt and completion, a decimal integer."""
    ESTIMATE_PROMPT = "estimate_prompt"
    """The prompt's part of the estimate."""
    CHOICES = "choices"
    """How many answers were asked for (`n`): vLLM's own counters count the prompt once for each."""
    PER_SECOND = "per_second"
    """What a second of audio costs, in tokens; absent where its length is not the price."""
    CLIENT_USAGE = "client_usage"
    """What the client asked to see of usage in its stream: `none`, `final`, `continuous`; or
    `untouched` where the answer always carries it (not streamed, responses, messages)."""


class LimitsKey(StrEnum):
    """`Namespace.LIMITS`: what the rate-limit service says of an admitted request."""

    HELD_BY = "held_by"
    """Which replica holds it in slices of limits, for whoever settles it; absent where the store
    holds all of it."""


class UsageKey(StrEnum):
    """`Namespace.USAGE`: what was seen of the answer, by the tap or by ext_proc (`Counting`).
    Written as the answer passes by."""

    STATUS = "status"
    """The answer's HTTP status: the upstream's, or that of an error of Envoy's own in its place."""
    PROMPT = "prompt"
    COMPLETION = "completion"
    CACHED = "cached"
    REASONING = "reasoning"
    SECONDS = "seconds"
    """How long the audio was, rounded up; only where a second has a price."""
    EVENTS = "events"
    """Events with output seen in a stream; kept up to date while no completion is known."""
    COMPLETE = "complete"
    """`1` once the whole answer has passed."""
    FIRST_EVENT_MS = "first_event_ms"
    """When the first output passed, in milliseconds since the Unix epoch."""
    ERROR = "error"
    """`1` when the stream itself reported an error inside a 200."""
    LEFT = "left"
    """`LEFT_YES` of a request that vLLM got and whose client left before any answer. Not in the
    metadata: Envoy says it in the settle descriptor and in the access log, when the stream ends."""


class Counting(StrEnum):
    """Who counts the tokens of an answer. A property of the deployment: of Envoy's filters."""

    PROXY = "proxy"
    """The tap, a Lua filter: no message to the services for a streamed chunk."""
    EXTPROC = "extproc"
    """ext_proc, to which the answer is streamed: for an Envoy that must not run Lua on answers."""


COUNTING_METADATA = ("x-headgate-counting", Counting.EXTPROC.value)
"""What Envoy's ext_proc filter says with each call where the service is to count. The service has
no setting of its own, which could say another thing than Envoy's and leave answers uncounted."""

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key")
"""Headers that may carry an API key: OpenAI's, Anthropic's and Azure's way to send one."""

DOMAIN = "headgate"
OP = "op"
OP_RESERVE = "reserve"
OP_SETTLE = "settle"
ABSENT = "-"
"""`default_value` of every metadata action: an action that finds nothing and has none drops
its whole descriptor, and the request would pass unlimited."""

LEFT_YES = "true"

RESERVE_ENTRIES = (
    AdmissionKey.RESERVATION,
    AdmissionKey.TENANT,
    AdmissionKey.USER,
    AdmissionKey.KEY,
    AdmissionKey.MODEL,
    AdmissionKey.API,
    AdmissionKey.ESTIMATE_PROMPT,
)
"""Entries of the reserve descriptor after `op`; its hits_addend is `AdmissionKey.ESTIMATE`.

A proxy whose configuration is older sends no `estimate_prompt`: all of the estimate then counts
as the dearer kind of token.
"""

SETTLE_ADMISSION_ENTRIES = (
    AdmissionKey.RESERVATION,
    AdmissionKey.TENANT,
    AdmissionKey.ESTIMATE,
    AdmissionKey.ESTIMATE_PROMPT,
    AdmissionKey.PER_SECOND,
)
SETTLE_LIMITS_ENTRIES = (LimitsKey.HELD_BY,)
SETTLE_USAGE_ENTRIES = (
    UsageKey.STATUS,
    UsageKey.PROMPT,
    UsageKey.COMPLETION,
    UsageKey.CACHED,
    UsageKey.SECONDS,
    UsageKey.EVENTS,
    UsageKey.COMPLETE,
    UsageKey.ERROR,
)
"""Entries of the settle descriptor after `op`, and `UsageKey.LEFT` last; its hits_addend is 0.

A proxy whose configuration is older says nothing of `left`: such a request is given back.
"""


def held_by(values: Mapping[str, str]) -> str:
    """Which replica holds a request; empty where nobody said so, as older proxies do."""
    value = values.get(LimitsKey.HELD_BY, ABSENT)
    return "" if value == ABSENT else value


class Header(StrEnum):
    """Request headers that ext_proc writes for the router and vLLM; clients' own are removed."""

    TENANT = "x-headgate-tenant"
    USER = "x-headgate-user"
    MODEL = "x-headgate-model"
    BASE = "x-headgate-base"
    VERSION = "x-headgate-version"
    TIER = "x-headgate-tier"
    LORA = "x-headgate-lora"
    AFFINITY = "x-headgate-affinity"


VERSION_HEADER = "x-model-version"
"""With it a client chooses a version, where its tenant may. It never reaches vLLM."""

STRIPPED_HEADERS = (
    "x-vllm-priority",
    "x-data-parallel-rank",
    "x-session-id",
    "endpoint-load-metrics-format",
    "accept-encoding",
)
"""Client headers that never reach vLLM: they change scheduling for others, make vLLM tell of its
load, or (the last) would let the answer come compressed, where the tap cannot read it."""
