"""A policy with every kind of model, and messages as Envoy sends them."""

from collections.abc import Mapping
from zoneinfo import ZoneInfo

from extproc.types import RequestFacts, Value
from headgate._gen.ext_proc_pb2 import ProcessingRequest
from headgate.core.contract import Namespace
from headgate.core.policy import Calendar, Caller, CompiledPolicy, Model, Tenant

ALICE = Caller("acme", "alice", "k1")
CONTEXT = 8192


def model(name: str, **changes: object) -> Model:
    fields: dict[str, object] = {
        "name": name,
        "base": name,
        "served_as": name,
        "upstream": "http://127.0.0.1:8000",
        "context_tokens": CONTEXT,
        "forces_usage": True,
    }
    return Model(**{**fields, **changes})  # type: ignore[arg-type]


MODELS = {
    entry.name: entry
    for entry in (
        model("tiny"),
        model("shy", forces_usage=False),
        model("alias", served_as="org/served"),
        model("poet", base="tiny", adapter="lora-poet", served_as="lora-poet"),
        model("org/slashed"),
        model("reserved"),
        model("rival", base="tiny", adapter="lora-rival", served_as="lora-rival"),
    )
}
_UTC = Calendar(ZoneInfo("UTC"))
POLICY = CompiledPolicy(
    models=MODELS,
    tenants={
        "acme": Tenant(
            name="acme",
            calendar=_UTC,
            models=frozenset({"tiny", "shy", "alias", "poet", "org/slashed", "gone"}),
            limits=(),
        ),
        "rivals": Tenant(
            name="rivals", calendar=_UTC, models=frozenset({"rival", "reserved"}), limits=()
        ),
    },
    keys={},
)


def facts(
    values: Mapping[str, Value] | None = None,
    path: str = "/v1/chat/completions",
    caller: Caller | None = ALICE,
    size_bytes: int | None = 1000,
    method: str = "POST",
) -> RequestFacts:
    fields = {"body": "read", **(values or {})}
    return RequestFacts(
        path=path, caller=caller, values=fields, size_bytes=size_bytes, method=method
    )


def headers_message(
    values: Mapping[str, Value] | None = None,
    path: str = "/v1/chat/completions",
    caller: Caller | None = ALICE,
    size_bytes: int = 1000,
) -> ProcessingRequest:
    """The header message: pseudo headers, two namespaces, one attribute."""
    message = ProcessingRequest()
    sent = message.request_headers.headers.headers
    sent.add(key=":path", raw_value=path.encode())
    sent.add(key=":method", raw_value=b"POST")
    metadata = message.metadata_context.filter_metadata
    if caller is not None:
        metadata[Namespace.CALLER].update(
            {"tenant": caller.tenant, "user": caller.user, "key": caller.key}
        )
    metadata[Namespace.REQUEST].update({"body": "read", **(values or {})})
    message.attributes["envoy.filters.http.ext_proc"].update({"request.size": size_bytes})
    return message


def body_message(body: bytes) -> ProcessingRequest:
    message = ProcessingRequest()
    message.request_body.body = body
    message.request_body.end_of_stream = True
    return message
