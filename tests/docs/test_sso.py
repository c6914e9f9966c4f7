"""The entries of docs/sso.md take tokens as each provider writes them, and refuse others."""

import re
from pathlib import Path
from typing import Any

import pytest

from headgate.core.errors import ApiError
from headgate.core.issuers import Person, Role
from headgate.core.policy import CompiledPolicy
from headgate.policy import parse_policy
from tests.identity.issuer import TestIssuer
from tests.identity.rig import Rig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sso.md").read_text(encoding="utf-8")
ENTRA = "0f8fad5b-d9cb-469f-a165-70867728950e"
PROVIDERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "Okta": (
        "https://acme.okta.com/oauth2/default",
        {"aud": "api://headgate", "sub": "rita@example.org", "cid": "0oa1example",
         "groups": ["Everyone", "llm-acme"]},
        "okta:rita@example.org",
    ),
    "Entra ID": (
        f"https://login.microsoftonline.com/{ENTRA}/v2.0",
        {"aud": "11111111-2222-3333-4444-555555555555", "oid": "6e0c", "sub": "pairwise",
         "preferred_username": "rita@example.org", "roles": ["Llm.Use"], "ver": "2.0",
         "groups": None, "name": None},
        "entra:6e0c",
    ),
    "Keycloak": (
        "https://login.example.org/realms/corp",
        {"aud": ["headgate", "account"], "sub": "7c1e", "azp": "chat", "typ": "Bearer",
         "preferred_username": "rita", "groups": ["ml-team"]},
        "keycloak:7c1e",
    ),
    "Google": (
        "https://accounts.google.com",
        {"aud": "1234567890-example.apps.googleusercontent.com", "sub": "10769150350006150715113",
         "hd": "example.org", "email": "rita@example.org", "groups": None},
        "google:10769150350006150715113",
    ),
    "GitHub Actions": (
        "https://token.actions.githubusercontent.com",
        {"sub": "repo:acme/app:ref:refs/heads/main", "repository": "acme/app",
         "repository_owner": "acme", "groups": None, "name": None},
        "actions:repo:acme/app:ref:refs/heads/main",
    ),
}  # fmt: skip
NEIGHBOURS = [
    ("Okta", {"cid": "another-app"}),
    ("Okta", {"groups": ["Everyone"]}),
    ("Entra ID", {"roles": ["Another.Role"]}),
    ("Entra ID", {"aud": "another-client"}),
    ("Keycloak", {"azp": "another-client"}),
    ("Keycloak", {"aud": ["account"]}),
    ("Google", {"hd": None}),
    ("Google", {"hd": "elsewhere.org"}),
    ("GitHub Actions", {"repository_owner": "mallory", "repository": "mallory/app"}),
    ("GitHub Actions", {"repository": "acme/secret"}),
]


def policy_of(title: str) -> CompiledPolicy:
    """A policy with the entry of this section."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    block = re.search(r"```yaml\n(issuers:\n.*?)```", section, flags=re.DOTALL)
    assert block is not None, title
    models = 'models: {tiny: {upstream: "http://127.0.0.1:8000", context_tokens: 8192}}'
    whole = f"{models}\ntenants: {{acme: {{models: [tiny]}}}}\n{block[1]}"
    return parse_policy(whole.encode(), "docs/sso.md")


def rig_of(title: str) -> Rig:
    return Rig(TestIssuer(PROVIDERS[title][0]), policy_of(title))


@pytest.mark.parametrize("title", PROVIDERS)
async def test_a_token_as_the_provider_writes_it_names_its_person(title: str) -> None:
    rig = rig_of(title)
    _, claims, user = PROVIDERS[title]

    person = await rig.settled(rig.issuer.token(**claims))

    assert isinstance(person, Person), person
    assert (person.user, dict(person.tenants)) == (user, {"acme": Role.USER})


@pytest.mark.parametrize(("title", "changed"), NEIGHBOURS, ids=str)
async def test_a_token_that_the_entry_does_not_mean_is_refused(
    title: str, changed: dict[str, Any]
) -> None:
    rig = rig_of(title)

    said = await rig.settled(rig.issuer.token(**{**PROVIDERS[title][1], **changed}))

    assert isinstance(said, ApiError)


def test_the_entry_for_logging_in_is_a_policy() -> None:
    (issuer,) = policy_of("Log in as a person").issuers.values()

    assert issuer.browser_login is not None
    assert issuer.device_login is not None
