"""What does it cost to find out who calls?

Each row is one way to call, as a check of ext_authz: from Envoy's message to the answer's bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from prometheus_client import CollectorRegistry

from bench.measure import Durations, in_turns, timed
from bench.table import Table
from extauthz.failures import FailureLimit
from extauthz.service import Authorization
from headgate._gen.auth_pb2 import CheckRequest
from headgate.core.clock import SystemClock
from headgate.core.keys import digest_of
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.identity.changes import NO_HASH, Head
from headgate.identity.issuers.source import IssuerKeys
from headgate.identity.ring import NEVER_S, KeyContent, MemoryRing, SecretRow
from headgate.identity.verifier import TokenVerifier
from headgate.policy import parse_policy

CALLS = 1_000
_URL = "https://login.example.org"
_KEYS = {"plain": "sk-hg-plain", "front": "sk-hg-front", "signed": "sk-hg-signed"}
_ISSUED = "sk-hg-issued"
_SECRET = b"a secret of more than thirty-two bytes"
_EXPIRES_S = 4_000_000_000

Headers = tuple[tuple[str, bytes], ...]


@dataclass
class _Row:
    """One way to call: its messages, and how long their checks took."""

    name: str
    service: Authorization
    headers: Callable[[], Headers]
    durations: Durations

    async def call(self, counts: bool) -> None:
        """One check of a message that Envoy could have sent."""
        data = _message(self.headers())
        await timed(self._check(data), self.durations if counts else None)

    async def _check(self, data: bytes) -> None:
        answer = await self.service.check(CheckRequest.FromString(data), None)
        assert not answer.status.code, answer
        answer.SerializeToString()


async def measure(calls: int = CALLS) -> list[Table]:
    """By the way to call. Times are ratios to a key of the file."""
    with TemporaryDirectory() as folder:
        rows = await _rows(Path(folder))
        await in_turns([row.call for row in rows], calls)
    first = rows[0].durations
    cells = [(row.name, row.durations.median_s / first.median_s) for row in rows]
    note = "Ratios to the first row, in one run. A token is remembered for a minute."
    return [Table("A check by the way to call", ("caller", "median"), cells, note)]


async def _rows(folder: Path) -> list[_Row]:
    rsa = RSAKey.generate_key(2048, {"alg": "RS256"}, auto_kid=True)
    ec = ECKey.generate_key("P-256", {"alg": "ES256"}, auto_kid=True)
    (folder / "secret").write_bytes(_SECRET)
    service = await _service(_policy(folder), KeySet([rsa, ec]))
    remembered = _token(rsa, 0)
    numbers = iter(range(1, 10**9))

    def row(name: str, headers: Callable[[], Headers]) -> _Row:
        return _Row(name, service, headers, Durations())

    return [
        row("key of the file", lambda: (_bearer(_KEYS["plain"].encode()),)),
        row("key at run time", lambda: (_bearer(_ISSUED.encode()),)),
        row("JWT, remembered", lambda: (_bearer(remembered),)),
        row("JWT, first seen, RS256", lambda: (_bearer(_token(rsa, next(numbers))),)),
        row("JWT, first seen, ES256", lambda: (_bearer(_token(ec, next(numbers))),)),
        row("acts_for", lambda: (_bearer(_KEYS["front"].encode()), ("x-end-user-id", b"u1"))),
        row("acts_for, signed", lambda: (_bearer(_KEYS["signed"].encode()), _signed())),
    ]


async def _service(policy: CompiledPolicy, keys: KeySet) -> Authorization:
    clock = SystemClock()
    metrics = Metrics(CollectorRegistry(), clock)

    async def fetch(_: str) -> bytes:
        return json.dumps(keys.as_dict(private=False)).encode()

    source = IssuerKeys(lambda: policy.issuers, fetch, clock, metrics)
    verifier = TokenVerifier(source, clock, metrics)
    ring = _ring(clock)
    return Authorization(lambda: policy, verifier, FailureLimit(), clock, metrics, keys=ring)


def _ring(clock: SystemClock) -> MemoryRing:
    """The keys of a database, of which this is the only one."""
    content, ring = KeyContent(), MemoryRing(clock, NEVER_S)
    secret = SecretRow(
        digest=digest_of(_ISSUED),
        key="~0011223344556677",
        tenant="acme",
        user="rita",
        expires_s=NEVER_S,
        is_revoked=False,
        models=None,
        limits=(),
    )
    content.take(secret, clock.now_s())
    ring.replace(content, Head(1, NO_HASH))
    return ring


def _policy(folder: Path) -> CompiledPolicy:
    plain, front, signed = (digest_of(key).hex() for key in _KEYS.values())
    text = f"""\
models: {{tiny: {{upstream: "http://127.0.0.1:8000", context_tokens: 8192}}}}
issuers:
  corp:
    issuer: {_URL}
    audience: [headgate]
    algorithms: [RS256, ES256]
    tenants: [{{tenant: acme, groups: [ml]}}]
tenants:
  acme:
    models: [tiny]
    keys:
      - {{user: alice, sha256: "{plain}"}}
      - {{user: chat, sha256: "{front}", acts_for: {{header: x-end-user-id}}}}
      - user: safe
        sha256: "{signed}"
        acts_for: {{header: x-openwebui-user-jwt, secret_file: {folder / "secret"}}}
"""
    return parse_policy(text.encode(), "bench")


def _token(key: RSAKey | ECKey, number: int) -> bytes:
    claims = {"iss": _URL, "sub": f"u{number}", "aud": "headgate", "groups": ["ml"]}
    algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
    header = {"alg": algorithm, "kid": key.kid}
    return jwt.encode(header, {**claims, "exp": _EXPIRES_S}, key).encode()


def _signed() -> tuple[str, bytes]:
    claims = {"sub": "u1", "iss": "open-webui", "exp": _EXPIRES_S}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(_SECRET))
    return "x-openwebui-user-jwt", token.encode()


def _bearer(credential: bytes) -> tuple[str, bytes]:
    return "authorization", b"Bearer " + credential


def _message(headers: Headers) -> bytes:
    message = CheckRequest()
    message.attributes.source.address.socket_address.address = "192.0.2.1"
    http = message.attributes.request.http
    http.method, http.path = "POST", "/v1/chat/completions"
    for name, value in headers:
        http.header_map.headers.add(key=name, raw_value=value)
    return message.SerializeToString()
