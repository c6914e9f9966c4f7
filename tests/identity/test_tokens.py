"""Tokens that count, and every attack on them, each refused with its own error and counted."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.decide import Allow, Deny
from headgate.core.errors import ApiError
from headgate.core.issuers import Person, Role, user_name
from headgate.core.policy import Caller
from tests.identity.issuer import NOW_S, TestIssuer, ec_key, ed_key, rsa_key, signed
from tests.identity.rig import Rig, policy_of

RSA, EC, ED = rsa_key(), ec_key(), ed_key()
STRANGER = rsa_key()
ISSUER = TestIssuer("https://login.example.org", RSA, EC, ED)
ALL = ", algorithms: [RS256, ES256, Ed25519]"


@pytest.fixture
def rig() -> Rig:
    return Rig(ISSUER, policy_of(ISSUER.url, ALL))


@pytest.mark.parametrize("key", [RSA, EC, ED], ids=["RS256", "ES256", "Ed25519"])
async def test_a_good_token_names_its_person(rig: Rig, key: Any) -> None:
    decision = await rig.decided(ISSUER.token(key=key))

    assert isinstance(decision, Allow)
    assert decision.caller == Caller("acme", "corp:alice", "corp")
    assert decision.display_name == "Alice Example"
    assert rig.counted("verified") == 1


def part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def unsigned(algorithm: str) -> bytes:
    return part({"alg": algorithm, "kid": RSA.kid}) + b"." + part(ISSUER.claims()) + b"."


def with_public_key_as_secret() -> bytes:
    return signed({"alg": "HS256", "kid": RSA.kid}, ISSUER.claims(), RSA.as_pem(private=False))


def claims_twice() -> bytes:
    text = json.dumps(ISSUER.claims())[:-1] + ', "sub": "root"}'
    return signed({"alg": "RS256", "kid": RSA.kid}, text.encode(), RSA)


def header_twice() -> bytes:
    header = f'{{"alg": "none", "alg": "RS256", "kid": "{RSA.kid}"}}'.encode()
    first = base64.urlsafe_b64encode(header).rstrip(b"=")
    return b".".join((first, *ISSUER.token().split(b".")[1:]))


def other_spelling() -> bytes:
    """The last character of an RSA signature of 256 bytes has two bits that say nothing."""
    token = ISSUER.token()
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1:]) + 1 :][:1]


def nested_lists() -> bytes:
    deep = b'{"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    return signed({"alg": "RS256", "kid": RSA.kid}, deep, RSA)


def at(header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> Callable[[], bytes]:
    return lambda: ISSUER.token(header, key, **claims)


ATTACKS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "expired": (at(exp=NOW_S - 31), "token_expired", "expired"),
    "not yet valid": (at(nbf=NOW_S + 31), "invalid_token", "not_yet_valid"),
    "issued in the future": (at(iat=NOW_S + 31), "invalid_token", "not_yet_valid"),
    "without an end": (at(exp=None), "invalid_token", "claim"),
    "an end as text": (at(exp="1900000000"), "invalid_token", "claim"),
    "an end that is true": (at(exp=True), "invalid_token", "claim"),
    "an end beyond numbers": (at(exp=10**400), "invalid_token", "claim"),
    "alg none": (lambda: unsigned("none"), "invalid_token", "algorithm"),
    "alg nOnE": (lambda: unsigned("nOnE"), "invalid_token", "algorithm"),
    "HS256 with the public key": (with_public_key_as_secret, "invalid_token", "algorithm"),
    "the algorithm of another key": (
        lambda: signed({"alg": "RS256", "kid": EC.kid}, ISSUER.claims(), RSA),
        "invalid_token",
        "algorithm",
    ),
    "another algorithm of the key's type": (
        lambda: signed({"alg": "PS256", "kid": RSA.kid}, ISSUER.claims(), STRANGER),
        "invalid_token",
        "algorithm",
    ),
    "another key": (
        lambda: signed({"alg": "RS256", "kid": RSA.kid}, ISSUER.claims(), STRANGER),
        "invalid_token",
        "signature",
    ),
    "a key of its own": (
        at({"jwk": STRANGER.as_dict(private=False), "kid": "own"}, STRANGER),
        "invalid_token",
        "unknown_key",
    ),
    "a key at an address": (
        at({"jku": "http://127.0.0.1:1/jwks", "kid": "far"}, STRANGER),
        "invalid_token",
        "unknown_key",
    ),
    "a path as kid": (at({"kid": "../../etc/passwd"}), "invalid_token", "unknown_key"),
    "a URL as kid": (at({"kid": "http://127.0.0.1:1/key"}), "invalid_token", "unknown_key"),
    "no kid": (at({"kid": None}), "invalid_token", "unknown_key"),
    "an unknown extension": (at({"crit": ["x"], "x": 1}), "invalid_token", "critical_header"),
    "an empty list of extensions": (at({"crit": []}), "invalid_token", "critical_header"),
    "a payload that is not base64": (at({"b64": False}), "invalid_token", "critical_header"),
    "a log-out token": (at({"typ": "logout+jwt"}), "invalid_token", "type"),
    "a nested token": (at({"cty": "JWT"}), "invalid_token", "type"),
    "a token as its claims": (
        lambda: signed({"alg": "RS256", "kid": RSA.kid}, ISSUER.token(), RSA),
        "invalid_token",
        "malformed",
    ),
    "a certificate at an address": (
        at({"x5u": "http://127.0.0.1:1/cert", "kid": "far"}, STRANGER),
        "invalid_token",
        "unknown_key",
    ),
    "a claim twice": (claims_twice, "invalid_token", "duplicate_member"),
    "a header member twice": (header_twice, "invalid_token", "duplicate_member"),
    "another spelling of the signature": (other_spelling, "invalid_token", "malformed"),
    "deep nesting": (nested_lists, "invalid_token", "malformed"),
    "wrong audience": (at(aud="another"), "invalid_token", "audience"),
    "no audience": (at(aud=None), "invalid_token", "audience"),
    "an audience that is no text": (at(aud=[7, {"a": 1}]), "invalid_token", "audience"),
    "no subject": (at(sub=None), "invalid_token", "claim"),
    "a number as subject": (at(sub=7), "invalid_token", "claim"),
    "a line break in the subject": (at(sub="a\nb"), "invalid_token", "claim"),
    "a long subject": (at(sub="a" * 257), "invalid_token", "claim"),
    "a subject too long once it is escaped": (at(sub="\N{SNOWMAN}" * 50), "invalid_token", "claim"),
    "groups that are numbers": (at(groups=[1]), "invalid_token", "claim"),
    "no group of the policy": (at(groups=["other"]), "tenant_not_found", "no_tenant"),
    "no groups": (at(groups=None), "tenant_not_found", "no_tenant"),
    "groups left out": (
        at(groups=None, _claim_names={"groups": "src1"}),
        "tenant_not_found",
        "groups_left_out",
    ),
    "groups left out, in short": (
        at(groups=None, hasgroups=True),
        "tenant_not_found",
        "groups_left_out",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_each_attack_is_refused_and_counted(
    rig: Rig, attack: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, code, reason = ATTACKS[attack]
    token = make()

    decision = await rig.decided(token)

    assert isinstance(decision, Deny)
    assert decision.error.refusal.code == code
    assert rig.counted(reason) == 1
    signature = token.rpartition(b".")[2].decode()
    told = decision.error.body(decision.shape).decode() + caplog.text
    assert not signature or signature not in told
    assert not [name for name in ("\n", "\0") if name in decision.error.message]


async def test_the_same_subject_of_another_issuer_is_nobody(rig: Rig) -> None:
    """A token counts by its issuer and its subject, never by the subject alone."""
    decision = await rig.decided(ISSUER.token(iss="https://evil.example.org"))

    assert isinstance(decision, Deny)
    assert rig.counted("unknown_issuer") == 1


async def test_a_token_of_one_megabyte_is_refused_unread(rig: Rig) -> None:
    decision = await rig.decided(b"eyJ" + b"a" * 2**20 + b".a.a")

    assert isinstance(decision, Deny)
    assert "16384 bytes" in decision.error.message
    assert rig.registry.get_sample_value("headgate_tokens_checked_total") is None


async def test_a_second_valid_signature_of_one_token_is_revoked_with_the_first(rig: Rig) -> None:
    """From (r, s) of ES256 anybody can make (r, n - s). So tokens are not revoked by digest."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    token = ISSUER.token(key=EC)
    head, _, signature = token.rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    other = raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32)
    twin = head + b"." + base64.urlsafe_b64encode(other).rstrip(b"=")
    assert isinstance(await rig.settled(twin), Person)

    rig.revoked = type(rig.revoked)(tokens=frozenset({("corp", "t-1")}))

    for each in (token, twin):
        said = await rig.settled(each)
        assert isinstance(said, ApiError)
        assert said.refusal.code == "token_revoked"
    assert rig.counted("revoked") == 2


@pytest.mark.parametrize(
    "revoked",
    [
        {"users": frozenset({"corp:alice"})},
        {"tokens": frozenset({("corp", "t-1")})},
        {"issued_before_s": {"corp:alice": NOW_S + 1}},
    ],
    ids=["person", "jti", "iat"],
)
async def test_a_revocation_stops_a_remembered_token_at_once(rig: Rig, revoked: Any) -> None:
    token = ISSUER.token()
    assert isinstance(await rig.settled(token), Person)

    rig.revoked = type(rig.revoked)(**revoked)

    assert isinstance(rig.person(token), ApiError)
    assert isinstance(await rig.settled(ISSUER.token(sub="bob", jti="t-2")), Person)


def test_a_token_that_does_not_say_when_it_was_issued_counts_as_old(rig: Rig) -> None:
    person = Person(issuer="corp", subject="alice", user="corp:alice", tenants={})
    revoked = type(rig.revoked)(issued_before_s={"corp:alice": 1.0})

    assert revoked.covers(person)


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        ("auth0|5f7c", "corp:auth0|5f7c"),
        ("repo:o/r:ref:refs/heads/main", "corp:repo:o/r:ref:refs/heads/main"),
        ("spiffe://cluster.local/ns/a/sa/b", "corp:spiffe://cluster.local/ns/a/sa/b"),
        ("a b%c", "corp:a%20b%25c"),
        ("jos\N{LATIN SMALL LETTER E WITH ACUTE}", "corp:jos%C3%A9"),
    ],
)
async def test_a_subject_becomes_a_user(rig: Rig, subject: str, user: str) -> None:
    person = await rig.settled(ISSUER.token(sub=subject))

    assert isinstance(person, Person)
    assert person.user == user


def test_a_colon_in_the_origin_makes_no_other_user() -> None:
    assert user_name("a:b", "c") == "a%3Ab:c" != user_name("a", "b:c")


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_different_subjects_are_different_users_of_plain_characters(one: str, other: str) -> None:
    users = {user_name("corp", subject) for subject in (one, other)} - {None}
    assert len(users) == len({one, other}) or len(users) < 2
    assert all(user.isascii() and user.isprintable() and " " not in user for user in users if user)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=80))
def test_no_bytes_are_a_person_or_an_exception(one: bytes, two: bytes, three: bytes) -> None:
    encoded = (base64.urlsafe_b64encode(each).rstrip(b"=") for each in (one, two, three))
    for token in (b".".join(encoded), b".".join((one, two, three))):
        assert not isinstance(Rig(ISSUER).person(token), Person)


@settings(max_examples=100)
@given(st.data())
def test_no_changed_byte_of_a_token_passes(data: st.DataObject) -> None:
    rig = Rig(ISSUER, policy_of(ISSUER.url, ALL))
    token = GOOD
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.integers(0, 255))
    changed = token[:place] + bytes([letter]) + token[place + 1 :]
    rig.keys._take(*_state(rig), ISSUER.document)

    assert isinstance(rig.person(changed), Person) == (changed == token)


def _state(rig: Rig) -> tuple[Any, Any]:
    (issuer,) = rig.policy.issuers.values()
    return issuer, rig.keys._state(issuer)


GOOD = ISSUER.token()


async def test_the_highest_role_in_a_tenant_counts() -> None:
    tenants = "[{tenant: acme}, {tenant: acme, groups: [boss], role: admin}]"
    rig = Rig(ISSUER, policy_of(ISSUER.url, tenants=tenants))

    boss = await rig.settled(ISSUER.token(groups=["boss"]))
    other = await rig.settled(ISSUER.token(groups=None))

    assert isinstance(boss, Person)
    assert isinstance(other, Person)
    assert (boss.tenants, other.tenants) == ({"acme": Role.ADMIN}, {"acme": Role.USER})


async def test_a_person_of_two_tenants_chooses_one(rig: Rig) -> None:
    token = ISSUER.token(groups=["ml", "lab"])

    silent = await rig.decided(token)
    assert isinstance(silent, Deny)
    assert silent.error.refusal.code == "tenant_not_found"
    assert "acme, lab" in silent.error.message
    assert "`issuers.corp.tenants`" in silent.error.message

    chosen = await rig.decided(token, ("openai-organization", b"lab"))
    assert isinstance(chosen, Allow)
    assert chosen.caller.tenant == "lab"
    for wrong in (b"other", b"", b"acme,lab"):
        refused = await rig.decided(token, ("openai-organization", wrong))
        assert isinstance(refused, Deny)
    both = [("openai-organization", name) for name in (b"lab", b"acme")]
    assert isinstance(await rig.decided(token, *both), Deny)


async def test_a_person_of_one_tenant_cannot_choose_another(rig: Rig) -> None:
    decision = await rig.decided(ISSUER.token(), ("openai-organization", b"lab"))

    assert isinstance(decision, Allow)
    assert decision.caller.tenant == "acme"


async def test_other_claims_may_be_demanded() -> None:
    rig = Rig(ISSUER, policy_of(ISSUER.url, ", claims: {azp: [web, cli]}"))

    assert isinstance(await rig.settled(ISSUER.token(azp="cli")), Person)
    for azp in ("other", None, ["x"], 7):
        said = await rig.settled(ISSUER.token(azp=azp))
        assert isinstance(said, ApiError)
        assert "`issuers.corp.claims.azp`" in said.message


@pytest.mark.parametrize("audience", ["headgate", ["x", "headgate"]])
async def test_an_audience_may_be_a_list(rig: Rig, audience: Any) -> None:
    assert isinstance(await rig.settled(ISSUER.token(aud=audience)), Person)


@pytest.mark.parametrize(
    ("known", "claimed", "told"),
    [
        ("https://a.example.org/", "https://a.example.org", "to the last character."),
        (
            "https://login.microsoftonline.com/0f8fad5b-d9cb-469f-a165-70867728950e/v2.0",
            "https://sts.windows.net/0f8fad5b-d9cb-469f-a165-70867728950e/",
            "`requestedAccessTokenVersion`",
        ),
    ],
    ids=["slash", "Entra v1 and v2"],
)
async def test_nearly_the_same_issuer_is_named(known: str, claimed: str, told: str) -> None:
    rig = Rig(ISSUER, policy_of(known))

    said = await rig.settled(ISSUER.token(iss=claimed))

    assert isinstance(said, ApiError)
    assert "`issuers.corp.issuer`" in said.message
    assert told in said.message


async def test_groups_may_lie_deep_and_be_one_text() -> None:
    rig = Rig(ISSUER, policy_of(ISSUER.url, ", groups: [realm_access, roles]"))

    assert isinstance(await rig.settled(ISSUER.token(realm_access={"roles": "ml"})), Person)


async def test_entra_names_a_person_by_oid() -> None:
    rig = Rig(ISSUER, policy_of(ISSUER.url, ", user: oid"))

    person = await rig.settled(ISSUER.token(oid="0f8f"))
    assert isinstance(person, Person)
    assert person.user == "corp:0f8f"
    said = await rig.settled(ISSUER.token())
    assert isinstance(said, ApiError)
    assert "`issuers.corp.user`" in said.message


async def test_a_skew_is_allowed_to_its_last_second(rig: Rig) -> None:
    assert isinstance(await rig.settled(ISSUER.token(exp=NOW_S - 29)), Person)
    assert isinstance(await rig.settled(ISSUER.token(nbf=NOW_S + 30)), Person)


async def test_a_token_whose_tenant_has_left_the_policy_is_refused(rig: Rig) -> None:
    token = ISSUER.token()
    assert isinstance(await rig.decided(token), Allow)
    tenants = {"lab": rig.policy.tenants["lab"]}
    rig.policy = type(rig.policy)(models={}, tenants=tenants, keys={}, issuers=rig.policy.issuers)

    assert isinstance(await rig.decided(token), Deny)


async def test_a_401_for_a_token_says_so(rig: Rig) -> None:
    decision = await rig.decided(ISSUER.token(aud="x"))

    assert isinstance(decision, Deny)
    assert decision.headers == (("www-authenticate", 'Bearer error="invalid_token"'),)


async def test_without_issuers_a_token_is_no_key() -> None:
    rig = Rig(ISSUER)
    rig.policy = type(rig.policy)(models={}, tenants={}, keys={})

    decision = await rig.decided(ISSUER.token())

    assert isinstance(decision, Deny)
    assert "no `issuers`" in decision.error.message
