"""A policy with three keys, and Check messages as Envoy sends them."""

import hashlib
from typing import NoReturn
from zoneinfo import ZoneInfo

from extauthz import decide as extauthz_decide
from extauthz.cors import PageHeaders
from extauthz.decide import CheckResult
from extauthz.request import CheckInput
from headgate._gen.auth_pb2 import CheckRequest
from headgate.core.issuers import KeysNeeded
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.policy import Calendar, Caller, CompiledPolicy, Tenant

KEY = "sk-alice"
ALICE = Caller("acme", "alice", "k1")


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


POLICY = CompiledPolicy(
    models={},
    tenants={
        "acme": Tenant(
            name="acme", calendar=Calendar(ZoneInfo("UTC")), models=frozenset(), limits=()
        )
    },
    keys={
        digest(KEY): ALICE,
        digest("sk-bob"): Caller("acme", "bob", "k2"),
        digest("sk-gone"): Caller("vanished", "eve", "k3"),
    },
)


class NoTokens:
    """A verifier for requests without a token: it must not be asked."""

    def person(self, *_: object) -> NoReturn:
        raise AssertionError("there is no token to verify")

    end_user = person

    async def fetch_keys(self, *_: object) -> NoReturn:
        raise AssertionError("there is no key to fetch")


def decide(request: CheckInput, policy: CompiledPolicy, keys: KeyRing = NO_KEYS) -> CheckResult:
    """The decision about a request without a token."""
    result = extauthz_decide.decide(request, policy, NoTokens(), keys)
    assert not isinstance(result, KeysNeeded)
    return result


def check_input(
    *headers: tuple[str, str], method: str = "POST", path: str = "/v1/chat/completions"
) -> CheckInput:
    raw = tuple((name, value.encode()) for name, value in headers)
    return CheckInput(method, path, raw)


def preflight(origin: str, path: str = "/v1/chat/completions", headers: str = "") -> CheckInput:
    """As a browser asks before a page's POST."""
    page = PageHeaders(origin, "POST", headers)
    return CheckInput("OPTIONS", path, (), page=page)


def check_request(
    *headers: tuple[str, bytes],
    method: str = "POST",
    path: str = "/v1/chat/completions",
    address: str = "192.0.2.1",
) -> CheckRequest:
    """As Envoy sends it with `encode_raw_headers`: pseudo headers and the allowed ones."""
    message = CheckRequest()
    message.attributes.source.address.socket_address.address = address
    http = message.attributes.request.http
    http.method = method
    http.path = path
    pseudo = ((":method", method.encode()), (":path", path.encode()))
    for name, value in (*pseudo, *headers):
        http.header_map.headers.add(key=name, raw_value=value)
    return message
