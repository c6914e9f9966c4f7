"""The requests of a soak: what is asked, how it ends, and what clients may see of it."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.box import digest

STEADY, TORN = "tiny", "torn"
"""Two models on two upstreams: answers of the first end well, those of the second break off."""

TENANTS = ("acme", "globex", "initech")
USERS = ("ann", "bob", "cid", "dan", "eve")
MINUTE_TENANT = "hooli"
"""Few requests a minute: most of its callers meet the limit."""
SLOTS_TENANT = "umbrella"
"""Few requests in flight."""
LEASE_S = 20
SLOTS = 4
REQUESTS_A_MINUTE = 60

Ending = Literal["complete", "left", "broken", "refused"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to ask. `most_tokens` is the most that can be charged for the answer's output."""

    name: str
    path: str
    body: dict[str, Any]
    ending: Ending = "complete"
    simulate: str = ""
    statuses: frozenset[int] = frozenset({200})
    weight: int = 1
    most_tokens: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Caller:
    """The user of a request."""

    tenant: str
    user: str

    @property
    def secret(self) -> str:
        return f"sk-soak-{self.tenant}-{self.user}-0123456789abcdef"


_MESSAGES = [{"role": "user", "content": "Count these tokens, please, all of them."}]
_STREAM = {"stream": True}
_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
_CHAT = "/v1/chat/completions"


def _chat(name: str, tokens: int, body: dict[str, Any], model: str = STEADY, **more: Any) -> Kind:
    whole = {"model": model, "messages": _MESSAGES, "max_tokens": tokens, **body}
    return Kind(name, _CHAT, whole, most_tokens=tokens, **more)


KINDS = (
    _chat("plain", 4, {}, weight=4),
    _chat("stream", 6, _USAGE, weight=5),
    _chat("stream, body rewritten", 6, _STREAM, weight=3),
    _chat("three choices", 3, {**_STREAM, "n": 3}),
    Kind(
        "completions",
        "/v1/completions",
        {"model": STEADY, "prompt": ["a b c", "d e"], "max_tokens": 4, **_USAGE},
    ),
    Kind(
        "responses",
        "/v1/responses",
        {"model": STEADY, "input": "Hello", "max_output_tokens": 5, **_STREAM},
    ),
    Kind(
        "messages",
        "/v1/messages",
        {"model": STEADY, "messages": _MESSAGES, "max_tokens": 5, **_STREAM},
    ),
    _chat("client leaves", 25, _STREAM, TORN, ending="left", weight=4),
    _chat("client leaves early", 5, {}, TORN, ending="left", simulate="ttft=0.3"),
    _chat("upstream cut", 12, _STREAM, TORN, ending="broken", simulate="cut_after=5"),
    _chat("engine dies", 12, _STREAM, TORN, ending="broken", simulate="error_after=4"),
    _chat(
        "upstream error",
        4,
        {},
        TORN,
        ending="refused",
        simulate="status=500",
        statuses=frozenset({500}),
    ),
    _chat("no such model", 4, {}, "nobody", ending="refused", statuses=frozenset({404})),
    Kind("not JSON", _CHAT, {}, "refused", statuses=frozenset({400})),
    _chat(
        "no such key",
        4,
        {},
        ending="refused",
        statuses=frozenset({401}),
        headers={"authorization": "Bearer sk-soak-nobody"},
    ),
)


def wire(kind: Kind, caller: Caller) -> bytes:
    """The request as it goes to the proxy, on a connection of its own."""
    body = b"{not json" if kind.name == "not JSON" else json.dumps(kind.body).encode()
    headers = {
        "host": "soak",
        "connection": "close",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "authorization": f"Bearer {caller.secret}",
        **({"x-simulate": kind.simulate} if kind.simulate else {}),
        **kind.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {kind.path} HTTP/1.1\r\n{head}\r\n".encode() + body


def callers(tenant: str) -> list[Caller]:
    return [Caller(tenant, user) for user in USERS]


def policy(steady: str, torn: str) -> str:
    """Generous limits that count everything, and two tenants that meet theirs."""
    lines = ["models:"]
    for model, upstream in ((STEADY, steady), (TORN, torn)):
        lines += [f"  {model}:", f"    upstream: {upstream}", "    context_tokens: 8192"]
    lines.append("tenants:")
    for tenant in (*TENANTS, MINUTE_TENANT, SLOTS_TENANT):
        lines += [f"  {tenant}:", f"    models: [{STEADY}, {TORN}]", "    limits:"]
        lines += [f"      - {{{limit}, each: user}}" for limit in _limits(tenant)]
        lines.append("    keys:")
        lines += [
            f'      - {{user: {caller.user}, sha256: "{digest(caller.secret)}"}}'
            for caller in callers(tenant)
        ]
    return "\n".join(lines)


def _limits(tenant: str) -> list[str]:
    limits = ["count: tokens, limit: 1000000000, per: year"]
    limits.append("count: requests, limit: 100000000, per: year")
    if tenant == MINUTE_TENANT:
        limits.append(f"count: requests, limit: {REQUESTS_A_MINUTE}, per: minute")
    if tenant == SLOTS_TENANT:
        limits.append(f"count: concurrent, limit: {SLOTS}, lease_s: {LEASE_S}")
    return limits
