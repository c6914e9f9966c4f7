"""A verifier with an issuer of our own and a clock that tests move."""

from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CollectorRegistry

from extauthz.decide import CheckResult, decided
from extauthz.request import CheckInput, Shown
from headgate.core.errors import ApiError
from headgate.core.issuers import KeysNeeded, Person
from headgate.core.key_ring import NO_KEYS, KeyRing
from headgate.core.keys import digest_of
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.identity.issuers.source import IssuerKeys
from headgate.identity.tokens.revocations import NOTHING_REVOKED, Revocations
from headgate.identity.verifier import TokenVerifier
from headgate.policy import parse_policy
from tests.fakes import FakeClock
from tests.identity.issuer import NOW_S, TestIssuer


def policy_of(url: str, issuer: str = "", more: str = "", tenants: str = "") -> CompiledPolicy:
    """A policy whose issuer `corp` has this URL and these settings; `ml` leads to acme."""
    mapping = tenants or "[{tenant: acme, groups: [ml]}, {tenant: lab, groups: [lab]}]"
    text = f"""\
models: {{tiny: {{upstream: "http://127.0.0.1:8000", context_tokens: 8192}}}}
issuers:
  corp: {{issuer: "{url}", audience: [headgate], tenants: {mapping}{issuer}}}
tenants:
  acme: {{models: [tiny]}}
  lab: {{models: [tiny]}}
{more}"""
    return parse_policy(text.encode(), "headgate.yaml")


class Rig:
    """Everything between a token and its answer."""

    def __init__(
        self,
        issuer: TestIssuer,
        policy: CompiledPolicy | None = None,
        fetch: Callable[[str], Awaitable[bytes]] | None = None,
    ) -> None:
        self.issuer = issuer
        self.policy = policy or policy_of(issuer.url)
        self.clock = FakeClock(NOW_S)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, self.clock)
        self.revoked: Revocations = NOTHING_REVOKED
        self.ring: KeyRing = NO_KEYS
        self.keys = IssuerKeys(
            lambda: self.policy.issuers, fetch or issuer.fetch, self.clock, self.metrics
        )
        self.verifier = TokenVerifier(self.keys, self.clock, self.metrics, lambda: self.revoked)

    def person(self, token: bytes) -> Person | ApiError | KeysNeeded:
        """What the verifier says at once."""
        return self.verifier.person(token, digest_of(token), self.policy.issuers)

    async def settled(self, token: bytes) -> Person | ApiError | KeysNeeded:
        """What it says after a fetch, where it needs one."""
        said = self.person(token)
        if isinstance(said, KeysNeeded):
            await self.verifier.fetch_keys(said)
            said = self.person(token)
        return said

    async def decided(self, token: bytes, *headers: tuple[str, bytes], **shown: Any) -> CheckResult:
        """The decision about a request with this token."""
        return await self.asked(("authorization", b"Bearer " + token), *headers, **shown)

    async def asked(self, *headers: tuple[str, bytes], principal: str = "") -> CheckResult:
        """The decision about a request with these headers."""
        credentials = tuple(pair for pair in headers if pair[0] in ("authorization", "x-api-key"))
        others = tuple(pair for pair in headers if pair not in credentials)
        request = CheckInput(
            "POST",
            "/v1/chat/completions",
            credentials,
            shown=Shown(headers=others, principal=principal),
        )
        return await decided(request, self.policy, self.verifier, self.ring)

    def counted(self, outcome: str) -> float:
        """How many tokens had this outcome, of whatever issuer."""
        name = "headgate_tokens_checked_total"
        labels = ({"issuer": alias, "outcome": outcome} for alias in ("corp", "", "front_end"))
        return sum(self.registry.get_sample_value(name, each) or 0.0 for each in labels)
