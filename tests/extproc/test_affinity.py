"""Which requests belong together, by each word of the policy."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extproc.affinity import affinity, conversation, placing
from headgate.core.apis import Api
from headgate.core.contract import RequestKey
from headgate.core.placement import Affinity
from headgate.core.policy import Caller
from headgate.core.versions import Sticky, Version, Versions
from tests.extproc.builders import ALICE, model

NAMED = {RequestKey.PROMPT_CACHE_KEY: "chat 7"}
PODS = ("10.0.0.1:8000",)
TEXTS = st.text(max_size=12)


def key(word: Affinity, values=NAMED, caller: Caller = ALICE, adapter: str | None = None) -> str:  # type: ignore[no-untyped-def]
    return affinity(caller, model("tiny", affinity=word, adapter=adapter), values)


@pytest.mark.parametrize("word", [Affinity.CONVERSATION, Affinity.PROMPT, Affinity.ADAPTER])
def test_a_conversation_that_its_client_names_stays_together(word: Affinity) -> None:
    other = structs.replace(ALICE, user="bob")

    assert key(word) == key(word, caller=other) != key(word, {RequestKey.PROMPT_CACHE_KEY: "8"})


@pytest.mark.parametrize("word", Affinity)
def test_without_anything_else_the_user_stays_together(word: Affinity) -> None:
    assert key(word, {}) == "alice"


PROMPTED = {RequestKey.PROMPT_HASH: "5f"}


def test_a_session_names_a_conversation_unless_a_cache_key_does() -> None:
    session = {RequestKey.SESSION: "chat 7"}

    assert key(Affinity.CONVERSATION, session) == key(Affinity.CONVERSATION)
    assert key(Affinity.CONVERSATION, {**session, **NAMED}) == key(Affinity.CONVERSATION)
    assert key(Affinity.CONVERSATION, {RequestKey.SESSION: "8"}) != key(Affinity.CONVERSATION)


def test_users_with_the_same_beginning_stay_together_by_the_word_prompt() -> None:
    other = structs.replace(ALICE, user="bob")
    by_prompt = key(Affinity.PROMPT, PROMPTED)

    assert by_prompt == key(Affinity.PROMPT, PROMPTED, other) != "alice"
    assert by_prompt != key(Affinity.PROMPT, PROMPTED, structs.replace(ALICE, tenant="globex"))
    assert key(Affinity.PROMPT, {**PROMPTED, **NAMED}) == key(Affinity.CONVERSATION)
    assert key(Affinity.CONVERSATION, PROMPTED) == "alice"


def test_the_user_decides_whatever_the_client_names() -> None:
    assert key(Affinity.USER) == "alice"


def test_an_adapter_stays_together_for_all_users_of_a_tenant() -> None:
    other = structs.replace(ALICE, user="bob")
    of_one = key(Affinity.ADAPTER, adapter="sql")

    assert of_one == key(Affinity.ADAPTER, {}, other, adapter="sql")
    assert of_one != key(Affinity.ADAPTER, adapter="poet")


@given(TEXTS, TEXTS, st.sampled_from(Affinity), st.sampled_from([None, "sql"]))
def test_no_request_of_one_tenant_belongs_to_another_tenant(
    first: str, second: str, word: Affinity, adapter: str | None
) -> None:
    keys = []
    for tenant, named in (("acme", first), ("globex", second)):
        caller, entry = Caller(tenant, "alice", "k"), model("tiny", pods=PODS, adapter=adapter)
        entry = replace(entry, affinity=word)
        values = {RequestKey.PROMPT_CACHE_KEY: named}
        chosen = placing(caller, entry, affinity(caller, entry, values))
        assert chosen is not None
        keys.append(chosen.key)

    assert keys[0] != keys[1] or keys == ["", ""]


def test_only_a_model_with_pods_is_placed() -> None:
    split = (Version("v1", 50, "http://a:80", PODS), Version("v2", 50, "http://b:80"))
    versions = Versions(split, Sticky.CONVERSATION, 60)

    assert placing(ALICE, model("tiny"), "k") is None
    assert placing(ALICE, model("tiny", pods=PODS), "k").pods == PODS  # type: ignore[union-attr]
    of_versions = placing(ALICE, model("tiny", versions=versions), "k")
    assert of_versions is not None
    assert (of_versions.pods, of_versions.by_version) == ((), {"v1": PODS})


def test_without_affinity_a_request_has_no_key() -> None:
    placed = placing(ALICE, model("tiny", pods=PODS, affinity=Affinity.NONE), "k")

    assert placed is not None
    assert placed.key == ""


def test_the_conversation_of_a_version_does_not_depend_on_the_word() -> None:
    assert conversation(ALICE, NAMED) == key(Affinity.CONVERSATION)


@pytest.mark.parametrize("word", Affinity)
def test_no_turn_of_a_stored_conversation_is_given_away(word: Affinity) -> None:
    """Whether or not its clients name it, and whatever word the policy has."""
    entry = model("tiny", pods=PODS, affinity=word)
    for values in ({}, NAMED):
        belongs = affinity(ALICE, entry, values)
        first = placing(ALICE, entry, belongs, Api.RESPONSES)
        later = {**values, RequestKey.PROMPT_HASH: None}
        second = placing(ALICE, entry, affinity(ALICE, entry, later), Api.RESPONSES)

        assert first == second
        assert first is not None
        assert first.key
        assert first.slots is None
