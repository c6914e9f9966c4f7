"""Which calls about their own keys users may make on the data port."""

from dataclasses import replace

import pytest

from extproc.asked import RefusedError
from extproc.own_keys import key_call
from extproc.types import KeyAction, KeyCall
from headgate.core.issuers import FrontEnd, Issuer
from headgate.core.own_keys import OwnKeyRules
from headgate.core.policy import Caller, CompiledPolicy
from tests.extproc.builders import ALICE, POLICY, facts

KEYS = "/v1/headgate/keys"
ISSUER = Issuer(alias="okta", url="https://a.example.org", audiences=frozenset(), memberships=())
WITH_ISSUER = replace(POLICY, issuers={ISSUER.url: ISSUER})
RULES = OwnKeyRules(most=3, hours=100)
ALLOWING = replace(POLICY.tenants["acme"], own_keys=RULES)
PERSON = Caller("acme", "okta:00u1", "okta")
ID = "~0011223344556677"


def called(
    method: str,
    path: str = KEYS,
    caller: Caller = PERSON,
    policy: CompiledPolicy = WITH_ISSUER,
    allows: bool = True,
) -> KeyCall | str:
    """The call, or the code of its refusal."""
    tenant = ALLOWING if allows else POLICY.tenants["acme"]
    try:
        return key_call(facts(path=path, method=method, caller=caller), caller, tenant, policy)
    except RefusedError as refused:
        return refused.error.refusal.code


def test_a_person_makes_lists_and_ends_keys() -> None:
    made = called("POST", f"{KEYS}?name=my%20laptop&hours=8&model=tiny&model=poet")

    assert made == KeyCall(
        caller=PERSON,
        action=KeyAction.ISSUE,
        name="my laptop",
        hours=8,
        models=("poet", "tiny"),
        most=3,
    )
    assert called("GET") == KeyCall(caller=PERSON, action=KeyAction.LIST)
    assert called("DELETE", f"{KEYS}/{ID}") == KeyCall(
        caller=PERSON, action=KeyAction.REVOKE, key=ID
    )


def test_without_a_choice_a_key_has_all_models_for_as_long_as_allowed() -> None:
    made = called("POST")

    assert isinstance(made, KeyCall)
    assert (made.models, made.hours) == (None, 100)


@pytest.mark.parametrize(
    "caller",
    [ALICE, Caller("acme", "okta:00u1", ID), Caller("acme", "okta:00u1", "file"),
     Caller("acme", "bob", "okta")],
    ids=["key of the file", "key at run time", "file key of a person", "key named as an issuer"],
)  # fmt: skip
def test_a_key_makes_and_ends_no_key_but_lists_them(caller: Caller) -> None:
    assert called("POST", caller=caller) == "own_keys_refused"
    assert called("DELETE", f"{KEYS}/{ID}", caller=caller) == "own_keys_refused"
    assert isinstance(called("GET", caller=caller), KeyCall)


def test_a_front_end_that_is_named_as_an_issuer_makes_no_keys_for_its_users() -> None:
    front_end = FrontEnd(header="x-end-user-id")
    policy = replace(WITH_ISSUER, front_ends={Caller("acme", "okta", "okta"): front_end})

    assert called("POST", policy=policy) == "own_keys_refused"


def test_a_tenant_that_does_not_allow_it_makes_none_and_still_ends_them() -> None:
    assert called("POST", allows=False) == "own_keys_refused"
    assert isinstance(called("DELETE", f"{KEYS}/{ID}", allows=False), KeyCall)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("hours=0", "invalid_request"),
        ("hours=101", "invalid_request"),
        ("hours=1e3", "invalid_request"),
        ("hours=", "invalid_request"),
        ("hours=" + "9" * 5000, "invalid_request"),
        ("name=a%0Ab", "invalid_request"),
        ("name=" + "x" * 65, "invalid_request"),
        ("user=root", "invalid_request"),
        ("tenant=rivals", "invalid_request"),
        ("model=rival", "model_not_found"),
        ("model=", "model_not_found"),
    ],
    ids=lambda text: text[:20],
)
def test_a_query_that_asks_for_more_than_is_allowed_is_refused(query: str, code: str) -> None:
    assert called("POST", f"{KEYS}?{query}") == code


@pytest.mark.parametrize("id", ["", "alice-key", "~00", ID + "/x", "~001122334455667G", "..%2f"])
def test_what_is_no_id_of_a_key_is_not_there(id: str) -> None:
    assert called("DELETE", f"{KEYS}/{id}") == "key_not_found"
