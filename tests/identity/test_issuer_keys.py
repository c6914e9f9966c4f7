"""The keys of issuers: which are taken, when they are fetched, and how long they count."""

import asyncio
import logging

import pytest

from headgate.core.errors import ApiError
from headgate.core.issuers import KeysNeeded, Person
from headgate.identity.issuers.fetch import FetchError, HttpFetch
from headgate.identity.issuers.jwks import MAX_KEYS, read_keys
from headgate.identity.issuers.source import REFRESH_S, RETRY_S, UNKNOWN_S
from tests.identity.issuer import NOW_S, TestIssuer, ec_key, ed_key, rsa_key
from tests.identity.rig import Rig, policy_of

RSA = rsa_key()


async def test_a_first_token_has_the_keys_fetched_and_a_second_one_does_not() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    token = issuer.token()
    assert isinstance(rig.person(token), KeysNeeded)

    for each in (token, token, issuer.token(sub="bob")):
        assert isinstance(await rig.settled(each), Person)

    assert issuer.fetches == 1


async def test_a_new_key_counts_at_once() -> None:
    """An unknown key is fetched; nobody waits for the next regular fetch."""
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    await rig.settled(issuer.token())
    rig.clock.advance(RETRY_S)

    issuer.rotate()

    assert isinstance(await rig.settled(issuer.token()), Person)
    assert issuer.fetches == 2


async def test_a_flood_of_unknown_keys_costs_one_fetch_in_ten_seconds() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    await rig.settled(issuer.token())
    rig.clock.advance(RETRY_S)

    for number in range(100):
        said = await rig.settled(issuer.token({"kid": f"k{number}"}))
        assert isinstance(said, ApiError)
        rig.clock.advance(0.2)

    assert issuer.fetches == 1 + 2


async def test_one_unknown_key_is_not_looked_for_again_for_a_minute() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    await rig.settled(issuer.token())
    rig.clock.advance(RETRY_S)
    token = issuer.token({"kid": "old"}, exp=NOW_S + 3600)

    for _ in range(5):
        await rig.settled(token)
        rig.clock.advance(RETRY_S)
    assert issuer.fetches == 2

    rig.clock.advance(UNKNOWN_S)
    await rig.settled(token)
    assert issuer.fetches == 3


async def test_a_hundred_waiting_requests_share_one_fetch() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    tokens = [issuer.token(sub=f"u{number}") for number in range(100)]

    said = await asyncio.gather(*(rig.settled(token) for token in tokens))

    assert all(isinstance(each, Person) for each in said)
    assert issuer.fetches == 1


async def test_a_withdrawn_key_stops_to_count_with_the_next_fetch() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    token = issuer.token(exp=NOW_S + 3600)
    assert isinstance(await rig.settled(token), Person)

    issuer.rotate(keep=0)
    rig.clock.advance(REFRESH_S)
    rig.keys.refresh()
    await rig.keys.bring(KeysNeeded(issuer.url, ""))

    assert isinstance(await rig.settled(token), ApiError)


async def test_while_the_issuer_is_away_its_last_keys_count_for_the_stated_time() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    away = False

    async def fetch(url: str) -> bytes:
        if away:
            raise FetchError("nobody answers")
        return await issuer.fetch(url)

    rig = Rig(issuer, policy_of(issuer.url, ", stale_for_s: 600"), fetch)
    token = issuer.token(exp=NOW_S + 9999)
    assert isinstance(await rig.settled(token), Person)

    away = True
    for _ in range(6):
        rig.clock.advance(100)
        rig.keys.refresh()
        await rig.keys.bring(KeysNeeded(issuer.url, ""))
        assert isinstance(await rig.settled(token), Person)
    rig.clock.advance(61)

    said = await rig.settled(token)
    assert isinstance(said, ApiError)
    assert said.refusal.status == 503
    assert rig.counted("keys_away") == 1
    failed = {"issuer": "corp", "result": "failed"}
    assert rig.registry.get_sample_value("headgate_issuer_fetches_total", failed) == 7
    loaded = "headgate_issuer_keys_loaded_timestamp_seconds"
    assert rig.registry.get_sample_value(loaded, {"issuer": "corp"}) == NOW_S

    away = False
    rig.clock.advance(RETRY_S)
    assert isinstance(await rig.settled(token), Person)


async def test_an_issuer_that_never_answered_is_503_and_asked_once_in_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0

    async def fetch(_: str) -> bytes:
        nonlocal calls
        calls += 1
        raise FetchError("nobody answers")

    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer, fetch=fetch)
    with caplog.at_level(logging.ERROR):
        for _ in range(20):
            decision = await rig.decided(issuer.token())
            assert decision.error.refusal.status == 503
            assert (decision.counted, decision.recorded) == (False, False)
            rig.clock.advance(1)

    assert calls == 2
    assert caplog.text.count("nobody answers") == 1


async def test_an_empty_set_does_not_take_the_place_of_a_good_one() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    token = issuer.token()
    await rig.settled(token)

    issuer.keys = []
    rig.clock.advance(REFRESH_S)
    await rig.keys.bring(KeysNeeded(issuer.url, ""))

    rig.clock.advance(-REFRESH_S)
    assert isinstance(await rig.settled(token), Person)


async def test_a_slow_fetch_makes_a_request_wait_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headgate.identity.issuers.source.WAIT_S", 0.01)
    arrived = asyncio.Event()
    issuer = TestIssuer("https://a.example.org", RSA)

    async def fetch(url: str) -> bytes:
        await arrived.wait()
        return await issuer.fetch(url)

    rig = Rig(issuer, fetch=fetch)
    decision = await rig.decided(issuer.token())
    assert decision.error.refusal.status == 503
    assert ("retry-after", "1") in decision.headers

    arrived.set()
    await rig.keys.bring(KeysNeeded(issuer.url, ""))
    assert isinstance(rig.person(issuer.token()), Person)


async def test_a_remembered_token_is_not_verified_again_within_a_minute() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    token = issuer.token(exp=NOW_S + 3600)

    for _ in range(4):
        await rig.settled(token)
        rig.clock.advance(30)

    assert rig.counted("verified") == 2


async def test_a_token_is_not_remembered_beyond_its_end() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    token = issuer.token(exp=NOW_S + 5)
    assert isinstance(await rig.settled(token), Person)

    rig.clock.advance(5 + 30)

    assert isinstance(await rig.settled(token), ApiError)


async def test_a_new_policy_and_a_new_set_empty_the_memory() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    rig = Rig(issuer)
    token = issuer.token()
    assert (await rig.settled(token)).tenants.keys() == {"acme"}

    rig.policy = policy_of(issuer.url, tenants="[{tenant: lab}]")
    assert (await rig.settled(token)).tenants.keys() == {"lab"}

    before = rig.counted("verified")
    issuer.rotate()
    rig.clock.advance(RETRY_S)
    await rig.keys.bring(KeysNeeded(issuer.url, ""))
    await rig.settled(token)
    assert rig.counted("verified") == before + 1


async def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from headgate.identity.tokens.memory import TokenMemory  # noqa: PLC0415

    memory = TokenMemory(most=3)
    person = Person(issuer="a", subject="b", user="a:b", tenants={})
    for number in range(9):
        memory.add(bytes([number]), person, 0.0, 100.0)

    assert len(memory) == 3
    assert memory.get(bytes([8]), 1.0) is person
    assert memory.get(bytes([0]), 1.0) is None
    assert memory.get(bytes([8]), 60.0) is None


BAD_KEYS = {
    "for encryption": {**RSA.as_dict(private=False), "use": "enc", "alg": "RSA-OAEP"},
    "without an id": {k: v for k, v in RSA.as_dict(private=False).items() if k != "kid"},
    "broken": {"kty": "RSA", "kid": "x", "n": "!!", "e": "AQAB"},
    "short": {"kty": "RSA", "kid": "short", "n": "w" * 171, "e": "AQAB"},
    "symmetric": {"kty": "oct", "kid": "o", "k": "AAAA", "alg": "HS256"},
    "private": {**RSA.as_dict(private=True), "kid": "private"},
    "of a new type": {"kty": "AKP", "kid": "new", "alg": "ML-DSA-65", "pub": "AAAA"},
    "of an algorithm that is not allowed": {**RSA.as_dict(private=False), "alg": "RS512"},
    "of another type than its algorithm": {**RSA.as_dict(private=False), "alg": "ES256"},
    "no object": 7,
}


@pytest.mark.parametrize("bad", BAD_KEYS)
@pytest.mark.filterwarnings("ignore:Key size should be")
def test_one_bad_key_is_skipped_and_costs_no_other(bad: str) -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    issuer.extra = [BAD_KEYS[bad]]  # type: ignore[list-item]

    read = read_keys(issuer.document, ("RS256", "ES256"))

    assert (list(read.keys), read.skipped) == ([RSA.kid], 1)
    assert read.keys[RSA.kid].algorithm == "RS256"


def test_a_key_without_an_algorithm_is_bound_to_the_first_allowed_one() -> None:
    """Entra's keys name none; otherwise such a key would verify whatever a token asks for."""
    plain = {name: value for name, value in RSA.as_dict(private=False).items() if name != "alg"}
    issuer = TestIssuer("https://a.example.org", ec_key(), ed_key())
    issuer.extra = [plain]

    keys = read_keys(issuer.document, ("PS256", "RS256", "ES256", "EdDSA")).keys

    assert sorted(key.algorithm for key in keys.values()) == ["ES256", "EdDSA", "PS256"]


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 7}', b"\xff"])
def test_what_is_no_set_of_keys_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        read_keys(document, ("RS256",))


def test_a_set_of_too_many_keys_is_refused() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    issuer.extra = [RSA.as_dict(private=False)] * MAX_KEYS

    with pytest.raises(ValueError, match="at most 100 keys"):
        read_keys(issuer.document, ("RS256",))


async def test_keys_come_over_http_from_where_discovery_says() -> None:
    issuer = TestIssuer()
    fetch = HttpFetch()
    with issuer.serve() as url:
        assert await fetch(url) == issuer.document
    await fetch.aclose()


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("status", 503, "answers 503"),
        ("redirect", "http://127.0.0.1:1/other", "answers 302"),
        ("named", "https://evil.example.org", "says that the issuer is"),
        ("padding", 2**18, "has more than 262144 bytes"),
    ],
)
async def test_a_fetch_that_goes_wrong_says_how(field: str, value: object, told: str) -> None:
    issuer = TestIssuer()
    fetch = HttpFetch()
    with issuer.serve() as url:
        setattr(issuer, field, value)
        with pytest.raises(FetchError, match=told):
            await fetch(url)
    with pytest.raises(FetchError, match="cannot be read"):
        await fetch(issuer.url)
    await fetch.aclose()


async def test_a_running_source_fetches_before_it_is_asked_and_ends_cleanly() -> None:
    issuer = TestIssuer("https://a.example.org", RSA)
    fetched = asyncio.Event()

    async def fetch(url: str) -> bytes:
        fetched.set()
        return await issuer.fetch(url)

    rig = Rig(issuer, fetch=fetch)
    async with rig.keys:
        await fetched.wait()

    rig.policy = type(rig.policy)(models={}, tenants={}, keys={})
    rig.keys.refresh()
    assert not rig.keys._states
