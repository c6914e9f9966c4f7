"""The wire contract: the names that Envoy's filters and Headgate's services share.

Values in dynamic metadata are strings, as Envoy's rate-limit actions read only these;
`Namespace.REQUEST` alone may keep the types of JSON.
"""

from collections.abc import Mapping
from enum import StrEnum

from headgate.core.end_users import END_USER_HEADERS, ORGANIZATION
from headgate.core.trace_headers import REQUEST_ID

HEADER_PREFIX = "x-headgate-"


class Namespace(StrEnum):
    """The namespaces of Envoy's dynamic metadata, in the order in which filters write them."""

    CALLER = "envoy.filters.http.ext_authz"
    REQUEST = "headgate.request"
    ADMISSION = "headgate.admission"
    LIMITS = "envoy.filters.http.ratelimit"
    USAGE = "headgate.usage"


class CallerKey(StrEnum):
    """`Namespace.CALLER`: the caller, as ext_authz identified it."""

    TENANT = "tenant"
    USER = "user"
    KEY = "key"
    DISPLAY_NAME = "display_name"
    RECORD = "record"
    """`RECORD_NO` for a request that the access log leaves out; otherwise absent."""


RECORD_YES, RECORD_NO = "yes", "no"


class RequestKey(StrEnum):
    """`Namespace.REQUEST`: the body's fields, from the request reader.

    Older EnvoyFilters write some of them by Envoy's json_to_metadata, and lack the later ones.
    """

    BODY = "body"
    """`BODY_READ`, `BODY_FORM`, `BODY_PARSED` or `BODY_UNREADABLE`; absent without a body."""
    MODEL = "model"
    MODEL_AT = "model_at"
    """In a form: where the model's value begins in the body, in bytes from 0."""
    INCLUDE_USAGE_AT = "include_usage_at"
    CONTINUOUS_USAGE_AT = "continuous_usage_at"
    """In a form: where the values of these two fields begin; absent if the form lacks them."""
    STREAM = "stream"
    INCLUDE_USAGE = "include_usage"
    CONTINUOUS_USAGE = "continuous_usage"
    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    N = "n"
    PROMPT_CACHE_KEY = "prompt_cache_key"
    SESSION = "session"
    PROMPT_HASH = "prompt_hash"
    """These two are there only with the affinity reader (`headgate/dataplane/affinity.py`)."""
    BACKGROUND = "background"
    HIDDEN = "hidden"
    """The name of a field that sets the cost, whose string is too long to be shown."""
    PLATFORM = "platform"
    """The `PLATFORM_FIELDS` that the client set, joined by commas."""
    PROMPTS = "prompts"
    """The number of prompts of a completion; absent if it is 1."""
    CONVERSATIONS = "conversations"
    """The number of conversations in a chat batch; absent if it is 1."""
    FAULT = "fault"
    """Why the body is unreadable: a key of `extproc.faults.FAULTS`."""
    FAULT_AT = "fault_at"
    """The place of the fault in the body, in bytes from 0; absent if it has no place."""
    ENCODING = "encoding"
    """The content-encoding of a body that is unreadable for it."""
    FIELDS = "fields"
    """The members of the body that a policy may limit, each as `name=value`, joined by commas.

    The value is a number, `true`, or `-` for a string. A list or an object shows the number of its
    members. Members that are null or false are absent.
    """
    TEXT_BYTES = "text_bytes"
    """The bytes of text: those of the top level's strings, lists and objects that may reach the
    prompt, without white space between values, and without images."""
    IMAGES = "images"
    """The number of images, recordings, videos and files in the prompt; absent if there are none.
    The older EnvoyFilters write neither. The whole body then counts as text."""


BODY_PARSED = "parsed"
"""The request reader has not read the body to its end."""
BODY_READ = "read"
"""The body is a JSON object, and all its relevant fields are in the metadata."""
BODY_FORM = "form"
"""The body is a multipart form, and all its relevant fields are in the metadata."""
BODY_UNREADABLE = "unreadable"
"""The body is neither a JSON object with a JSON content type, nor a form on an audio path."""

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
"""Body fields of vLLM that a client must not set: they change the schedule of other requests,
control cache transfers, or impersonate a request. They are taken out; the salt is replaced."""


class AdmissionKey(StrEnum):
    """`Namespace.ADMISSION`: ext_proc's decision; also the entries of the reserve descriptor."""

    RESERVATION = "reservation"
    TENANT = "tenant"
    USER = "user"
    KEY = "key"
    MODEL = "model"
    BASE = "base"
    ADAPTER = "adapter"
    VERSION = "version"
    """The chosen version; absent if the policy has no versions for the model."""
    API = "api"
    ESTIMATE = "estimate"
    """The tokens to reserve, prompt and completion together: a decimal integer."""
    ESTIMATE_PROMPT = "estimate_prompt"
    """The prompt's part of the estimate."""
    CHOICES = "choices"
    """The number of answers asked for (`n`). vLLM's counters count the prompt for each of them."""
    TEXT_BYTES = "text_bytes"
    """The bytes of text to learn from; 0 if the prompt has images, absent if they are not known."""
    PER_SECOND = "per_second"
    """The price of a second of audio, in tokens; absent unless the price is by length."""
    SERVED_AS = "served_as"
    """vLLM's name of the model; absent if it is `MODEL`. Answers get the name in `MODEL`."""
    HOSTS = "hosts"
    """The pods to ask, each `IP:PORT`, the first one first, joined by commas; absent without."""
    CLIENT_USAGE = "client_usage"
    """The usage that the client asked to see: `none`, `final` or `continuous` in a stream. It is
    `untouched` if the answer always carries usage (not streamed, responses, messages)."""


class LimitsKey(StrEnum):
    """`Namespace.LIMITS`: the rate-limit service's answer about an admitted request."""

    HELD_BY = "held_by"
    """The replica that holds the request in its slices of limits; absent if the store holds all."""
    REFUSED_BY = "refused_by"
    REFUSED_COUNT = "refused_count"
    REFUSED_MOST = "refused_most"
    REFUSED_USED = "refused_used"
    REFUSED_ASKED = "refused_asked"
    """The limit that refused, what it counts, its number, its use, and what was asked of it."""


class UsageKey(StrEnum):
    """`Namespace.USAGE`: the answer's usage, written by the tap or ext_proc while it passes."""

    STATUS = "status"
    """The answer's HTTP status: the upstream's, or that of Envoy's own error in its place."""
    PROMPT = "prompt"
    COMPLETION = "completion"
    CACHED = "cached"
    REASONING = "reasoning"
    SECONDS = "seconds"
    """The length of the audio, rounded up; only if the price is by the second."""
    EVENTS = "events"
    """The events with output in a stream; kept up to date until a completion count is known."""
    COMPLETE = "complete"
    """`1` once the whole answer has passed."""
    FIRST_EVENT_MS = "first_event_ms"
    TTFT_MS = "ttft_ms"
    """The first output: its Unix time in a stream, or vLLM's own time to it in a whole answer."""
    ERROR = "error"
    """`1` if the stream reported an error although its status is 200."""
    ABANDONED = "left"
    """`ABANDONED_YES` if vLLM got the request, and nobody waited until it answered. Not in the
    metadata: Envoy adds it to the settle descriptor and the access log at the end."""


class Counting(StrEnum):
    """Where an answer's tokens are counted. Set in Envoy's filters, for a whole deployment."""

    PROXY = "proxy"
    """In the tap, a Lua filter: streamed chunks cost no message to the services."""
    EXTPROC = "extproc"
    """In ext_proc, which gets the whole answer: for an Envoy that must not run Lua on answers."""


COUNTING_METADATA = ("x-headgate-counting", Counting.EXTPROC.value)
"""The metadata that Envoy's ext_proc filter sends with each call if the service counts tokens. The
service has no setting of its own: a mismatch with Envoy's would leave answers uncounted."""

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key")
"""The headers that may carry an API key: OpenAI's, Anthropic's and Azure's."""
ORIGIN = "origin"
PREFLIGHT_METHOD = "access-control-request-method"
PREFLIGHT_HEADERS = "access-control-request-headers"
WEBSOCKET_KEY = "sec-websocket-key"
"""Each opening of a WebSocket has it (RFC 6455, 4.1). The door removes `upgrade` before."""
_PAGE = (ORIGIN, PREFLIGHT_METHOD, PREFLIGHT_HEADERS)
_SIGNS = (WEBSOCKET_KEY, *END_USER_HEADERS, ORGANIZATION, REQUEST_ID)
CHECKED_HEADERS = (*CREDENTIAL_HEADERS, *_PAGE, *_SIGNS)
"""The headers that Envoy sends to ext_authz."""

DOMAIN = "headgate"
OP = "op"
OP_RESERVE = "reserve"
OP_SETTLE = "settle"
ABSENT = "-"
"""The `default_value` of every metadata action. Without one, an action that finds no value drops
its whole descriptor, and the request passes unlimited."""

ABANDONED_YES = "true"

RESERVE_ENTRIES = (
    AdmissionKey.RESERVATION,
    AdmissionKey.TENANT,
    AdmissionKey.USER,
    AdmissionKey.KEY,
    AdmissionKey.MODEL,
    AdmissionKey.API,
    AdmissionKey.ESTIMATE_PROMPT,
    AdmissionKey.VERSION,
)
"""The entries of the reserve descriptor after `op`; its hits_addend is `AdmissionKey.ESTIMATE`.

A proxy with an older configuration sends no `estimate_prompt`. The whole estimate then counts as
the more expensive kind of token. Without `version` the demand counts for no version.
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
"""The entries of the settle descriptor after `op`; `UsageKey.ABANDONED` comes last. Its
hits_addend is 0.

A proxy with an older configuration sends `left` only for a client that disconnected, or never. Any
other request without an answer is then refunded.
"""

DESCRIPTOR_ENTRIES: Mapping[str, Mapping[str, Namespace]] = {
    OP_RESERVE: dict.fromkeys(RESERVE_ENTRIES, Namespace.ADMISSION),
    OP_SETTLE: {
        **dict.fromkeys(SETTLE_ADMISSION_ENTRIES, Namespace.ADMISSION),
        **dict.fromkeys(SETTLE_LIMITS_ENTRIES, Namespace.LIMITS),
        **dict.fromkeys(SETTLE_USAGE_ENTRIES, Namespace.USAGE),
    },
}
"""By `op`: the entries that are read from metadata, in order, each with its namespace."""


class Header(StrEnum):
    """The request headers that ext_proc sets for the router and vLLM; clients' own are removed."""

    TENANT = "x-headgate-tenant"
    USER = "x-headgate-user"
    MODEL = "x-headgate-model"
    BASE = "x-headgate-base"
    VERSION = "x-headgate-version"
    TIER = "x-headgate-tier"
    LORA = "x-headgate-lora"
    AFFINITY = "x-headgate-affinity"
    SPARE = "x-headgate-spare"


VERSION_HEADER = "x-model-version"
"""The header by which a client chooses a version, if its tenant may. It never reaches vLLM."""
PRIORITY_HEADER = "x-vllm-priority"
"""vLLM 0.28 with `--scheduling-policy priority` takes the smallest first. Only Headgate sets it."""

STRIPPED_HEADERS = (
    PRIORITY_HEADER,
    "x-data-parallel-rank",
    "x-session-id",
    "endpoint-load-metrics-format",
    "accept-encoding",
)
"""Client headers that never reach vLLM: they change its schedule, ask for its load, or compress."""
