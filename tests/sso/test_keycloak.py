"""Tokens of a real Keycloak, set up as docs/sso.md says."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from headgate.core.errors import ApiError
from headgate.core.issuers import Person
from headgate.identity.issuers.fetch import HttpFetch
from headgate.identity.issuers.source import RETRY_S
from tests.identity.issuer import NOW_S, TestIssuer
from tests.identity.rig import Rig, policy_of
from tests.sso.conftest import Keycloak


@pytest.fixture
async def rig(keycloak: Keycloak) -> AsyncIterator[Rig]:
    """A verifier of this Keycloak, at the time of the machine."""
    policy = policy_of(keycloak.issuer, ", claims: {azp: [cli]}, display_name: preferred_username")
    async with aclosing(HttpFetch()) as fetch:
        rig = Rig(TestIssuer(keycloak.issuer), policy, fetch)
        rig.clock.advance(time.time() - NOW_S)
        yield rig


async def test_an_access_token_names_its_person(keycloak: Keycloak, rig: Rig) -> None:
    person = await rig.settled(keycloak.tokens()["access_token"].encode())

    assert isinstance(person, Person), person
    assert person.tenants.keys() == {"acme"}
    assert person.display_name == "alice"
    assert person.user == f"corp:{person.subject}"


async def test_an_id_token_of_another_client_is_refused(keycloak: Keycloak, rig: Rig) -> None:
    """Its audience is the client, and not Headgate."""
    said = await rig.settled(keycloak.tokens()["id_token"].encode())

    assert isinstance(said, ApiError)
    assert "`issuers.corp.audience`" in said.message


async def test_a_key_for_encryption_is_skipped(keycloak: Keycloak, rig: Rig) -> None:
    await rig.settled(keycloak.tokens()["access_token"].encode())

    (issuer,) = rig.policy.issuers.values()
    keys = rig.keys.keys_of(issuer)
    assert keys is not None
    assert (len(keys.keys), keys.skipped) == (1, 1)


async def test_a_rotated_key_counts_at_once(keycloak: Keycloak, rig: Rig) -> None:
    before = keycloak.tokens()["access_token"].encode()
    assert isinstance(await rig.settled(before), Person)

    keycloak.rotate()
    rig.clock.advance(RETRY_S)

    after = keycloak.tokens()["access_token"].encode()
    assert after.partition(b".")[0] != before.partition(b".")[0]
    assert isinstance(await rig.settled(after), Person)
    assert isinstance(await rig.settled(before), Person)
