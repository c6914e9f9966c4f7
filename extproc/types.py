"""The values of ext_proc: the facts of a request and the decision about it. No logic.

Those that each request makes are msgspec's structs, which are made sooner than dataclasses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from msgspec import Struct
from msgspec.structs import replace

from headgate.core.apis import Api, ErrorShape
from headgate.core.contract import AdmissionKey, Header
from headgate.core.errors import ApiError
from headgate.core.failover import Failover
from headgate.core.policy import Caller, Tenant


class Compound(Enum):
    """The value of a JSON object or array, whose content Headgate does not read."""

    VALUE = "object or array"


Value = str | float | bool | Compound | None
"""A request field as metadata carries it: every number is a double."""


class ClientUsage(StrEnum):
    """The values of `AdmissionKey.CLIENT_USAGE`."""

    NONE = "none"
    FINAL = "final"
    CONTINUOUS = "continuous"
    UNTOUCHED = "untouched"


class RequestFacts(Struct, frozen=True, kw_only=True, gc=False):
    """One request as Envoy describes it in its header message.

    `caller` comes from ext_authz's metadata only, never from a header. `values` are the body's
    fields by `RequestKey`. `size_bytes` is the body's size, None if it is not known. `version` is
    the client's `VERSION_HEADER`. `request_id` is Envoy's, empty from an older proxy.
    `at_least` is the largest model that `auto` has chosen in the conversation. `adapter_version` is
    the version of its adapter that the conversation has. `cache_control` is the client's header.
    """

    path: str
    caller: Caller | None
    values: Mapping[str, Value]
    size_bytes: int | None
    version: str | None = None
    method: str = ""
    request_id: str = ""
    at_least: str | None = None
    adapter_version: str | None = None
    cache_control: str = ""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The changes to a JSON body.

    `model` is the model's new name, None to leave it. `force_usage` asks vLLM for usage with every
    chunk. `drop` names the members to take out. `salt_tenant` is the tenant whose cache salt goes
    in, None for no salt.
    """

    model: str | None
    force_usage: bool
    drop: tuple[str, ...] = ()
    salt_tenant: str | None = None


@dataclass(frozen=True, slots=True)
class UsageFields:
    """Where the values of `stream_include_usage` and `stream_continuous_usage_stats` begin.

    In bytes from 0; None for a field that the form does not have.
    """

    include: int | None
    continuous: int | None


@dataclass(frozen=True, slots=True)
class FormRewrite:
    """The changes to a multipart form.

    The model's name begins at `at` (bytes from 0), is `sent` now and becomes `model`. `usage` are
    the fields that must ask for usage with every chunk, None to leave them as they are.
    """

    at: int
    sent: bytes
    model: bytes
    usage: UsageFields | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """The version of a conversation, to remember: `key` keeps `version`.

    It is forgotten `kept_s` after its last request. A remembered version counts only while it is
    among `live`, the versions with a weight: a weight of 0 moves all conversations at once.
    """

    key: str
    version: str
    live: tuple[str, ...]
    kept_s: int


@dataclass(frozen=True, slots=True)
class SizePin:
    """The size of a conversation, to remember: `key` keeps the largest model that it has had.

    `order` are the models from the smallest to the largest. It is forgotten `kept_s` after the
    conversation's last request.
    """

    key: str
    model: str
    order: tuple[str, ...]
    kept_s: int


@dataclass(frozen=True, slots=True)
class Placing:
    """A request that goes to a pod which Headgate chooses.

    `pods` are those of its model, `by_version` those of each version, as the policy has them.
    Requests with the same `key` should meet the same pod; with an empty one the pod with the fewest
    requests. A pod with fewer than `slots` requests gives none of its keys away, and without slots
    none at all.
    """

    pods: tuple[str, ...]
    by_version: Mapping[str, tuple[str, ...]]
    key: str
    slots: int | None

    def of(self, version: str) -> tuple[str, ...]:
        """The pods of a version: its own ones, or else the model's."""
        return self.by_version.get(version, self.pods)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """A request whose answer may have been kept, or may be kept, once its body is known.

    `path` has no query. An answer is kept for `ttl_s` if it has at most `max_bytes`, all answers of
    the tenant `tenant_max_bytes`. The client takes one that is `max_age_s` old at most, None for
    any age, and 0 for none.
    """

    path: str
    api: Api
    tenant: str
    ttl_s: int
    max_bytes: int
    tenant_max_bytes: int
    max_age_s: int | None


class Admit(Struct, frozen=True, kw_only=True, gc=False):
    """The request goes on with these headers and this metadata, once `rewrite` is done.

    If there is a `pin`, it must be kept first: the request goes to the version that it then has.
    `chose_version` says that the client chose the version itself. With `placing` a pod of this
    version is chosen then. With `failover` the spare version may answer in its place. With
    `caching` the body is looked up in the answer cache.
    """

    headers: Mapping[Header, str]
    admission: Mapping[AdmissionKey, str]
    rewrite: Rewrite | FormRewrite | None
    pin: Pin | None = None
    chose_version: bool = False
    placing: Placing | None = None
    failover: Failover | None = None
    caching: Caching | None = None

    def with_version(self, version: str) -> "Admit":
        """The same admission, on this version."""
        return replace(
            self,
            headers={**self.headers, Header.VERSION: version},
            admission={**self.admission, AdmissionKey.VERSION: version},
            pin=None,
        )

    def with_spare(self, version: str) -> "Admit":
        """The same admission; Envoy may turn to this version where its own refuses connections."""
        return replace(self, headers={**self.headers, Header.SPARE: version})

    def with_hosts(self, hosts: Sequence[str]) -> "Admit":
        """The same admission, on these pods: the first one first."""
        return replace(self, admission={**self.admission, AdmissionKey.HOSTS: ",".join(hosts)})


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request ends here with an error, in the shape of its API.

    `wants` is the version of an adapter that must be loaded for it, None for any other error.
    """

    error: ApiError
    shape: ErrorShape
    wants: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The request ends here with 200 and this JSON body."""

    api: Api
    body: bytes


@dataclass(frozen=True, slots=True)
class Peek:
    """The request ends here with the state of the caller's limits, or the usage in them (`api`).

    All of them, or only those that a request to `model` meets.
    """

    tenant: Tenant
    caller: Caller
    model: str | None
    api: Api = Api.LIMITS


class KeyAction(Enum):
    """The things that callers do with their own keys."""

    LIST = "list"
    ISSUE = "issue"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCall:
    """The request ends here with an action on the caller's own keys.

    `key` is the key to revoke. The rest describes a key to issue; `models` None means all of the
    tenant's, and the user may have `most` live keys.
    """

    caller: Caller
    action: KeyAction
    key: str = ""
    name: str = ""
    hours: int = 0
    models: tuple[str, ...] | None = None
    most: int = 0


RequestDecision = Admit | Refuse | Answer | Peek | KeyCall
