"""Issuers, workloads and front ends of a policy file, compiled and summed up."""

from pathlib import Path

from headgate.core.issuers import FrontEnd, Issuer, Membership, Role
from headgate.core.policy import Caller
from headgate.policy import describe, parse_policy
from tests.policy.policies import DIGEST, MODELS

SPIFFE = "spiffe://cluster.local/ns/jobs/sa/nightly"
POLICY = parse_policy(
    f"""{MODELS}
issuers:
  corp:
    issuer: https://login.example.org
    audience: headgate
    algorithms: [ES256]
    groups: [realm_access, roles]
    claims: {{azp: [web, cli]}}
    tenants: [{{tenant: acme, groups: ml, role: admin}}, {{tenant: acme}}]
tenants:
  acme:
    models: [tiny]
    keys:
      - user: chat
        id: front
        sha256: "{DIGEST}"
        acts_for: {{header: x-openwebui-user-jwt, secret_file: /run/secret, missing: key}}
    workloads: [{{user: nightly, spiffe: "{SPIFFE}"}}]
    limits: [{{count: tokens, limit: 10, per: day, users: ["corp:00u1", "chat:ann", nightly]}}]
""".encode(),
    "headgate.yaml",
)


def test_callers_are_compiled() -> None:
    assert POLICY.issuers == {
        "https://login.example.org": Issuer(
            alias="corp",
            url="https://login.example.org",
            audiences=frozenset({"headgate"}),
            memberships=(
                Membership("acme", Role.ADMIN, frozenset({"ml"})),
                Membership("acme"),
            ),
            algorithms=("ES256",),
            groups=("realm_access", "roles"),
            claims={"azp": frozenset({"web", "cli"})},
        )
    }
    assert POLICY.workloads == {SPIFFE: Caller("acme", "nightly", SPIFFE)}
    front_end = FrontEnd(
        header="x-openwebui-user-jwt", secret_file=Path("/run/secret"), allows_none=True
    )
    assert POLICY.front_ends == {Caller("acme", "chat", "front"): front_end}


def test_the_summary_says_who_may_call_without_a_key() -> None:
    lines = describe(POLICY).splitlines()

    assert lines[-3:] == [
        "issuer corp: https://login.example.org; tenants acme;"
        " its keys count for 14400 s without it",
        "front end chat of acme: names its users in signed x-openwebui-user-jwt;"
        " a request without it is chat",
        f"workload {SPIFFE}: nightly of acme",
    ]
