"""The rules of a key's life, without a database."""

from dataclasses import replace

import pytest

from headgate.core.policy import Count, Each, Per
from headgate.identity.keys import (
    Key,
    KeyRequest,
    KeyRuleError,
    Secret,
    check_request,
    new_id,
    revoked,
    rotated,
)
from headgate.identity.limits import KeyLimit, compiled, written
from tests.identity.builders import ALICE, POLICY

NOW_S = 1_800_000_000.0
KEY = Key(id="~0011223344556677", request=ALICE, created_s=NOW_S)


def test_the_id_of_a_key_is_one_that_the_policy_file_cannot_have() -> None:
    assert new_id(lambda size: bytes(range(size))) == "~0001020304050607"


GOOD = KeyRequest(
    tenant="acme",
    user="auth0|5f7c:x@y/z",
    models=("tiny",),
    limits=(KeyLimit(Count.TOKENS, 1000, Per.DAY), KeyLimit(Count.CONCURRENT, 2)),
    labels={"cost_centre": "CC 4711", "project": "search"},
    expires_s=NOW_S + 3600,
)


def test_a_good_request_passes() -> None:
    check_request(GOOD, POLICY, NOW_S)


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"tenant": "nobody"}, "tenant", "the policy has no tenant 'nobody'"),
        ({"user": ""}, "user", "1 to 256"),
        ({"user": "a\nb"}, "user", "1 to 256"),
        ({"user": "x" * 257}, "user", "1 to 256"),
        ({"models": ()}, "models", "is empty"),
        ({"models": ("huge",)}, "models", "may not use 'huge'; allowed: large, tiny"),
        ({"limits": (KeyLimit(Count.TOKENS, 0, Per.DAY),)}, "limits", "the limit 0"),
        ({"limits": (KeyLimit(Count.TOKENS, 5),)}, "limits", "need a `per`"),
        ({"limits": (KeyLimit(Count.CONCURRENT, 5, Per.DAY),)}, "limits", "need a `per`"),
        ({"limits": (KeyLimit(Count.COST, 5),)}, "limits", "need a `per`"),
        ({"limits": (KeyLimit(Count.COST, 5, Per.DAY),)}, "limits", "no prices of 'tiny'"),
        ({"labels": {"Cost": "x"}}, "labels", "a name is"),
        ({"labels": {"cost": "a\nb"}}, "labels", "'cost' must be"),
        ({"labels": {f"l{n}": "x" for n in range(17)}}, "labels", "more than 16"),
        ({"expires_s": NOW_S}, "expires", "not in the future"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    change: dict[str, object], field: str, problem: str
) -> None:
    with pytest.raises(KeyRuleError, match=problem) as caught:
        check_request(replace(GOOD, **change), POLICY, NOW_S)

    assert caught.value.field == field


def test_a_rotation_gives_the_older_secrets_an_end_and_none_a_longer_life() -> None:
    endless, short = Secret(b"a", NOW_S), Secret(b"b", NOW_S, NOW_S + 5)
    fresh = Secret(b"c", NOW_S + 1)

    after = rotated(KEY, [endless, short], fresh, 60)

    assert [one.expires_s for one in after] == [NOW_S + 61, NOW_S + 5, None]


def test_a_rotation_without_overlap_ends_the_older_secret_at_once() -> None:
    after = rotated(KEY, [Secret(b"a", NOW_S)], Secret(b"c", NOW_S + 1), 0)

    assert after[0].expires_s == NOW_S + 1


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_key_that_has_ended_is_not_rotated(end: str) -> None:
    key = revoked(KEY, NOW_S)
    if end == "expired":
        key = replace(KEY, request=replace(ALICE, expires_s=NOW_S + 1))

    with pytest.raises(KeyRuleError, match="has ended"):
        rotated(key, [], Secret(b"c", NOW_S + 1), 60)


def test_a_second_revocation_changes_nothing() -> None:
    once = revoked(KEY, NOW_S)

    assert revoked(once, NOW_S + 9) == once


@pytest.mark.parametrize(
    "limit",
    [
        KeyLimit(Count.TOKENS, 7, Per.MONTH),
        KeyLimit(Count.COST, 7, Per.MONTH),
        KeyLimit(Count.CONCURRENT, 2),
    ],
)
def test_a_limit_counts_the_key_alone_and_can_be_written_back(limit: KeyLimit) -> None:
    assert compiled(limit).each == {Each.KEY}
    assert compiled(limit).id.startswith("own.")
    assert written(compiled(limit)) == limit
