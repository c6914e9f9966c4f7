"""The choice of a version: by the hash, by the memory, or by the client."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.pins.memory import MemoryPins
from extproc.types import Admit, Pin, Refuse
from extproc.versions import PinnedVersion, pin
from headgate.core.contract import VERSION_HEADER, AdmissionKey, Header
from headgate.core.policy import Caller, CompiledPolicy
from headgate.core.versions import Sticky, Version, Versions
from tests.extproc.builders import ALICE, POLICY, facts, model
from tests.fakes import FakeClock

MANY = 20_000


def versions(*weights: int, sticky: Sticky = Sticky.CONVERSATION) -> Versions:
    named = (Version(f"v{n}", weight, "http://x:1") for n, weight in enumerate(weights, start=1))
    return Versions(tuple(named), sticky, 3600)


def policy_with(*weights: int, chooses: bool = False) -> CompiledPolicy:
    split = versions(*weights)
    models = {
        name: replace(entry, versions=split) if entry.base == "tiny" else entry
        for name, entry in POLICY.models.items()
    }
    tenant = replace(POLICY.tenants["acme"], chooses_version=chooses, tier="gold")
    return CompiledPolicy(models, {**POLICY.tenants, "acme": tenant}, {})


def decided(asked: CompiledPolicy, version: str | None = None, **values: str) -> Admit:
    wanted = structs.replace(facts({"model": "tiny", **values}), version=version)
    admit = decide(wanted, asked, Estimator(), "r1")
    assert isinstance(admit, Admit)
    return admit


def share(split: Versions) -> Counter[str]:
    return Counter(pin(split, ALICE, "tiny", str(number)).version for number in range(MANY))


@given(st.integers(0, 100))
def test_versions_share_the_conversations_by_their_weights(weight: int) -> None:
    part = weight / 100
    deviation = math.sqrt(MANY * part * (1 - part)) + 1

    assert abs(share(versions(100 - weight, weight))["v2"] - MANY * part) < 5 * deviation


def test_three_versions_share_in_the_order_of_the_policy() -> None:
    seen = share(versions(50, 30, 20))

    assert sum(seen.values()) == MANY
    assert seen["v1"] > seen["v2"] > seen["v3"] > MANY * 0.17


@given(st.text(), st.text(), st.integers(1, 99))
def test_every_replica_chooses_the_same(tenant: str, conversation: str, weight: int) -> None:
    split, caller = versions(100 - weight, weight), Caller(tenant, "u", "k")

    assert pin(split, caller, "m", conversation) == pin(split, caller, "m", conversation)


def test_tenants_do_not_share_a_pin_by_the_same_key_of_a_conversation() -> None:
    split = versions(50, 50)

    assert pin(split, ALICE, "m", "x").key != pin(split, Caller("b", "alice", "k"), "m", "x").key


def test_users_and_tenants_stay_together_where_the_policy_says_so() -> None:
    bob = Caller(ALICE.tenant, "bob", "k")
    by_user, by_tenant = (
        versions(50, 50, sticky=sticky) for sticky in (Sticky.USER, Sticky.TENANT)
    )

    assert pin(by_user, ALICE, "m", "x").key == pin(by_user, ALICE, "m", "y").key
    assert pin(by_user, ALICE, "m", "x").key != pin(by_user, bob, "m", "x").key
    assert pin(by_tenant, ALICE, "m", "x").key == pin(by_tenant, bob, "m", "y").key


def test_an_adapter_is_on_the_version_that_its_base_is_on() -> None:
    split = policy_with(50, 50)
    base = decided(split, prompt_cache_key="c")
    adapter = decided(split, model="poet", prompt_cache_key="c")

    assert base.pin == adapter.pin is not None


async def kept(pins: MemoryPins, wanted: Pin) -> PinnedVersion:
    return await pins.keep(wanted)


async def test_no_conversation_moves_while_weights_do_until_one_is_0() -> None:
    pins = MemoryPins(FakeClock(0))
    before = [await kept(pins, pin(versions(90, 10), ALICE, "m", str(n))) for n in range(1000)]
    after = [await kept(pins, pin(versions(50, 50), ALICE, "m", str(n))) for n in range(1000)]
    rolled_back = [await kept(pins, pin(versions(100, 0), ALICE, "m", str(n))) for n in range(1000)]

    assert [pinned.version for pinned in before] == [pinned.version for pinned in after]
    assert {pinned.remembered for pinned in after} == {True}
    assert {pinned.version for pinned in rolled_back} == {"v1"}


async def test_new_conversations_are_split_by_the_new_weights() -> None:
    pins = MemoryPins(FakeClock(0))
    seen = [
        (await kept(pins, pin(versions(50, 50), ALICE, "m", str(n)))).version for n in range(2000)
    ]

    assert 880 < seen.count("v2") < 1120


async def test_a_canary_that_begins_moves_no_conversation_and_one_that_ended_left_nothing() -> None:
    pins = MemoryPins(FakeClock(0))
    seen = []
    for weights in ((100, 0), (90, 10), (0, 100), (50, 50)):
        split = versions(*weights)
        all_pinned = [await kept(pins, pin(split, ALICE, "m", str(n))) for n in range(500)]
        seen.append({pinned.version for pinned in all_pinned})

    assert seen == [{"v1"}, {"v1"}, {"v2"}, {"v2"}]


def test_a_model_with_two_versions_remembers_also_while_one_has_all_the_weight() -> None:
    admit = decided(policy_with(100, 0))

    assert admit.pin is not None
    assert (admit.pin.version, admit.pin.live) == ("v1", ("v1",))


def test_one_version_alone_needs_no_memory() -> None:
    admit = decided(policy_with(100))

    assert admit.pin is None
    assert admit.headers[Header.VERSION] == admit.admission[AdmissionKey.VERSION] == "v1"


def test_without_versions_there_is_no_version_header() -> None:
    admit = decided(POLICY)

    assert admit.pin is None
    assert Header.VERSION not in admit.headers


def test_a_tenants_tier_is_a_header() -> None:
    assert decided(policy_with(100)).headers[Header.TIER] == "gold"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_client_that_may_choose_gets_its_version_even_without_a_weight(version: str) -> None:
    admit = decided(policy_with(100, 0, chooses=True), version)

    assert admit.headers[Header.VERSION] == version
    assert (admit.pin, admit.chose_version) == (None, True)


def test_the_choice_of_a_client_that_may_not_choose_is_ignored() -> None:
    for asked in ("v2", "nonsense"):
        admit = decided(policy_with(100, 0), asked)
        assert admit.pin is not None
        assert admit.pin.version == "v1"


def test_a_version_that_does_not_exist_is_refused_with_those_that_do() -> None:
    wanted = structs.replace(facts({"model": "tiny"}), version="v9")
    refuse = decide(wanted, policy_with(90, 10, chooses=True), Estimator(), "r1")

    assert isinstance(refuse, Refuse)
    assert refuse.error.param == VERSION_HEADER
    assert "v1, v2" in refuse.error.message


def test_a_model_of_no_versions_ignores_the_choice() -> None:
    split = policy_with(90, 10, chooses=True)
    plain = CompiledPolicy({**split.models, "tiny": model("tiny")}, split.tenants, {})

    assert Header.VERSION not in decided(plain, "v2").headers
