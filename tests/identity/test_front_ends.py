"""`acts_for`: the end users of front ends; and workloads, known by their SPIFFE id."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.decide import Allow, CheckResult, Deny
from headgate.core.end_users import GROUP_HEADERS, USER_HEADERS
from headgate.core.keys import digest_of
from headgate.core.policy import Caller
from headgate.policy import identity
from tests.identity.issuer import NOW_S, TestIssuer, rsa_key, signed
from tests.identity.rig import Rig, policy_of

KEY, OTHER = b"sk-hg-front-end", b"sk-hg-other"
ISSUER = TestIssuer("https://login.example.org", rsa_key())
SECRET = b"a secret of more than thirty-two bytes"
SPIFFE = "spiffe://cluster.local/ns/jobs/sa/nightly"


def rig_of(acts_for: str) -> Rig:
    more = f"""\
  web:
    models: [tiny]
    keys:
      - {{user: chat, id: front, sha256: {digest_of(KEY).hex()}, acts_for: {acts_for}}}
      - {{user: bob, id: plain, sha256: {digest_of(OTHER).hex()}}}
    workloads: [{{user: nightly, spiffe: "{SPIFFE}"}}]
"""
    return Rig(ISSUER, policy_of(ISSUER.url, more=more))


async def ask(rig: Rig, *headers: tuple[str, bytes], key: bytes = KEY) -> CheckResult:
    return await rig.asked(("authorization", b"Bearer " + key), *headers)


def code(decision: CheckResult) -> str:
    assert isinstance(decision, Deny)
    return decision.error.refusal.code


async def test_the_person_in_the_header_is_the_user() -> None:
    rig = rig_of("{header: x-openwebui-user-id}")
    decision = await ask(rig, ("x-openwebui-user-id", b"5c0b-77"))

    assert isinstance(decision, Allow)
    assert decision.caller == Caller("web", "chat:5c0b-77", "front")


async def test_from_another_key_the_header_decides_nothing() -> None:
    rig = rig_of("{header: x-openwebui-user-id}")
    forged = ("x-openwebui-user-id", b"admin")

    decision = await ask(rig, forged, key=OTHER)
    assert isinstance(decision, Allow)
    assert decision.caller == Caller("web", "bob", "plain")
    by_token = await rig.decided(ISSUER.token(), forged)
    assert isinstance(by_token, Allow)
    assert by_token.caller.user == "corp:alice"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"a", b"b"],
        [b"a", b"a"],
        [b"{{LIBRECHAT_USER_ID}}"],
        [b"{{"],
        [b"a,b"],
        [b"a b"],
        [b"a\x00"],
        [b"a\nx-headgate-user: root"],
        [b"a\r\nb"],
        [b"'; drop table headgate.person; --"],
        [b"$(id)"],
        [b"jos\xc3\xa9"],
        [b"-a"],
        [b"a" * 257],
        [b"a" * 256],  # too long together with the key's user
    ],
)
async def test_a_header_that_is_not_one_id_is_refused(values: list[bytes]) -> None:
    """Otherwise all people of a front end could become one."""
    rig = rig_of("{header: x-end-user-id}")
    decision = await ask(rig, *(("x-end-user-id", value) for value in values))

    assert code(decision) == "invalid_end_user"
    assert "x-end-user-id" in decision.error.message  # type: ignore[union-attr]
    assert not decision.counted  # type: ignore[union-attr]


async def test_an_unfilled_placeholder_is_named() -> None:
    decision = await ask(rig_of("{header: x-end-user-id}"), ("x-end-user-id", b"{{USER}}"))

    assert isinstance(decision, Deny)
    assert "placeholder" in decision.error.message


async def test_another_header_of_the_list_does_not_count() -> None:
    rig = rig_of("{header: x-end-user-id}")
    assert code(await ask(rig, ("x-openwebui-user-id", b"a"))) == "invalid_end_user"


async def test_a_missing_header_may_mean_the_key_itself() -> None:
    rig = rig_of("{header: x-end-user-id, missing: key}")

    decision = await ask(rig)
    assert isinstance(decision, Allow)
    assert decision.caller == Caller("web", "chat", "front")
    assert code(await ask(rig, ("x-end-user-id", b"{{X}}"))) == "invalid_end_user"


GROUPS = (
    "{header: x-end-user-id, group_header: x-end-user-groups,"
    ' tenants: {students: acme, "For\u00f0ritun": lab}}'
)


@pytest.mark.parametrize(
    ("groups", "tenant"),
    [
        ([b"students"], "acme"),
        ([b"other, students ,students"], "acme"),
        (["For\u00f0ritun".encode()], "lab"),
        (["For\u00f0ritun".encode("latin-1")], "lab"),
        ([b"other,For%C3%B0ritun"], "lab"),
        (["students,For\u00f0ritun".encode()], None),
        ([b"other"], None),
        ([b""], None),
        ([], None),
    ],
)
async def test_groups_lead_to_one_tenant_or_are_refused(
    groups: list[bytes], tenant: str | None
) -> None:
    rig = rig_of(GROUPS)
    headers = [("x-end-user-groups", value) for value in groups]
    decision = await ask(rig, ("x-end-user-id", b"u1"), *headers)

    if tenant is None:
        assert code(decision) == "tenant_not_found"
    else:
        assert isinstance(decision, Allow)
        assert decision.caller == Caller(tenant, "chat:u1", "front")


async def test_two_headers_of_groups_are_refused() -> None:
    twice = [("x-end-user-groups", b"students")] * 2
    assert code(await ask(rig_of(GROUPS), ("x-end-user-id", b"u1"), *twice)) == "invalid_end_user"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    return path


def signed_rig(secret_file: Path) -> Rig:
    return rig_of(f"{{header: x-openwebui-user-jwt, secret_file: {secret_file}}}")


def open_webui_token(secret: bytes = SECRET, **changed: Any) -> bytes:
    """As open-webui makes it, from the facts of its source: HS256, `sub`, 300 s, no audience."""
    claims = {
        "sub": "5c0b-77",
        "email": "ann@example.org",
        "name": "Ann",
        "role": "user",
        "iss": "open-webui",
        "iat": NOW_S,
        "exp": NOW_S + 300,
        **changed,
    }
    return signed({"alg": "HS256", "typ": "JWT"}, claims, secret)


async def test_the_signed_header_of_open_webui_names_its_person(secret_file: Path) -> None:
    decision = await ask(signed_rig(secret_file), ("x-openwebui-user-jwt", open_webui_token()))

    assert isinstance(decision, Allow)
    assert decision.caller == Caller("web", "chat:5c0b-77", "front")


@pytest.mark.parametrize(
    ("token", "refused"),
    [
        (lambda: open_webui_token(b"another secret of thirty-two bytes"), "invalid_token"),
        (lambda: open_webui_token(exp=NOW_S - 31), "token_expired"),
        (lambda: open_webui_token(exp=None), "invalid_token"),
        (lambda: open_webui_token(sub=7), "invalid_token"),
        (lambda: open_webui_token(sub="a b"), "invalid_end_user"),
        (lambda: open_webui_token(sub="{{x}}"), "invalid_end_user"),
        (ISSUER.token, "invalid_token"),
        (lambda: b"5c0b-77", "invalid_token"),
    ],
)
async def test_a_signed_header_that_is_wrong_is_refused(
    secret_file: Path, token: Any, refused: str
) -> None:
    rig = signed_rig(secret_file)
    assert code(await ask(rig, ("x-openwebui-user-jwt", token()))) == refused


async def test_the_fall_back_to_plain_headers_is_refused(secret_file: Path) -> None:
    """open-webui sends them when it cannot sign."""
    decision = await ask(signed_rig(secret_file), ("x-openwebui-user-id", b"5c0b-77"))

    assert code(decision) == "invalid_end_user"
    assert "Unsigned headers do not count" in decision.error.message  # type: ignore[union-attr]


def test_a_new_secret_counts_at_once_and_a_missing_one_is_503(secret_file: Path) -> None:
    rig = signed_rig(secret_file)
    new = b"the next secret, of thirty-two bytes"
    secret_file.write_bytes(new)
    signed_anew = ("x-openwebui-user-jwt", open_webui_token(new))
    assert isinstance(asyncio.run(ask(rig, signed_anew)), Allow)
    for unusable in (SECRET, b"short", b"", None):
        if unusable is None:
            secret_file.unlink()
        else:
            secret_file.write_bytes(unusable)
        decision = asyncio.run(ask(rig, signed_anew))
        assert code(decision) == ("invalid_token" if unusable == SECRET else "service_unavailable")
    assert rig.counted("secret_file") == 3


async def test_a_token_signed_for_a_front_end_is_no_credential(secret_file: Path) -> None:
    rig = signed_rig(secret_file)
    assert code(await rig.decided(open_webui_token())) == "invalid_token"


async def test_a_workload_needs_no_key() -> None:
    decision = await rig_of("{header: x-end-user-id}").asked(principal=SPIFFE)

    assert isinstance(decision, Allow)
    assert decision.caller == Caller("web", "nightly", SPIFFE)


@pytest.mark.parametrize(
    "principal", ["", "spiffe://cluster.local/ns/jobs/sa/other", SPIFFE + "/", SPIFFE.upper()]
)
async def test_another_workload_is_nobody(principal: str) -> None:
    decision = await rig_of("{header: x-end-user-id}").asked(principal=principal)

    assert code(decision) == "missing_api_key"


async def test_a_header_about_a_certificate_is_no_identity() -> None:
    """XFCC and its like come from clients as well."""
    forged = ("x-forwarded-client-cert", f"URI={SPIFFE}".encode())
    assert code(await rig_of("{header: x-end-user-id}").asked(forged)) == "missing_api_key"


async def test_a_key_counts_before_the_workload_and_a_bad_key_is_not_saved_by_it() -> None:
    rig = rig_of("{header: x-end-user-id}")
    plain = await rig.asked(("authorization", b"Bearer " + OTHER), principal=SPIFFE)
    wrong = await rig.asked(("authorization", b"Bearer sk-wrong"), principal=SPIFFE)

    assert isinstance(plain, Allow)
    assert plain.caller.user == "bob"
    assert code(wrong) == "invalid_api_key"


@given(st.lists(st.binary(max_size=40), max_size=3))
async def test_a_front_end_names_one_plain_user_or_nobody(values: list[bytes]) -> None:
    rig = rig_of("{header: x-end-user-id}")
    decision = await ask(rig, *(("x-end-user-id", value) for value in values))

    if isinstance(decision, Allow):
        (value,) = values
        assert decision.caller.user == f"chat:{value.strip().decode()}"
        assert decision.caller.user.isascii()
        assert "{{" not in decision.caller.user
    else:
        assert code(decision) == "invalid_end_user"


def test_the_schema_offers_the_headers_that_the_filters_send() -> None:
    assert identity.UserHeader.__args__ == USER_HEADERS
    assert identity.GroupHeader.__args__ == GROUP_HEADERS
