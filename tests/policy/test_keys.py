"""API keys: made once, known by their digest."""

import hashlib
import itertools

import pytest

from headgate.core.keys import ApiKey, digest_of, new_key
from headgate.core.policy import Caller, CountedRequests, Per, Windowed
from headgate.policy import describe, key_yaml, load_policy, parse_policy
from headgate.program.demo import demo_policy
from tests.policy.policies import MODELS
from tests.policy.test_compile import EXAMPLE


def test_a_key_is_its_random_bytes_behind_a_prefix() -> None:
    key = new_key(lambda size: bytes(range(size)))

    assert key.secret == "sk-hg-000102030405060708090a0b0c0d0e0f1011121314151617"
    assert key.digest == hashlib.sha256(key.secret.encode()).digest()
    assert key.id == key.digest.hex()[:12]


def test_a_key_does_not_show_its_secret_by_accident() -> None:
    key = new_key(lambda size: b"x" * size)

    assert key.secret not in repr(key)


def test_a_digest_is_the_same_of_text_and_of_bytes_and_of_anything() -> None:
    assert digest_of("sk-1") == digest_of(b"sk-1")
    assert len(digest_of("\udcff")) == 32


@pytest.mark.parametrize(
    "user", ["alice", "alice@example.com", "123", "1e5", "true", "null", "0.5", "a:", "x+y", "No"]
)
@pytest.mark.parametrize("digest", [b"\xab" * 32, b"\x12" * 32, b"\x1e\x23" + b"\x45" * 30])
def test_the_yaml_of_a_key_is_what_admits_it(user: str, digest: bytes) -> None:
    entry = key_yaml("acme", user, ApiKey("sk-hg-1", digest))
    policy = f"{MODELS}tenants:\n  acme:\n    models: [tiny]\n    keys:\n{entry}"
    policy = parse_policy(policy.encode(), "headgate.yaml")

    assert {digest: Caller("acme", user, digest.hex()[:12])} == policy.keys
    assert "sk-" not in entry


def test_the_demo_admits_the_keys_that_it_prints() -> None:
    seeds = itertools.count(1)
    demo = demo_policy("http://127.0.0.1:1234", lambda size: bytes([next(seeds)]) * size)
    policy = parse_policy(demo.text.encode(), "headgate.yaml")

    callers = [policy.keys[digest_of(key.secret)] for key in demo.keys]
    assert [(caller.tenant, caller.user) for caller in callers] == [
        ("demo", "alice"),
        ("demo", "bob"),
        ("globex", "carol"),
    ]
    assert policy.models[demo.model].upstream == "http://127.0.0.1:1234"
    assert "sk-" not in demo.text
    assert all(key.secret not in repr(demo) for key in demo.keys)


def test_the_demos_first_key_meets_a_limit_of_a_hundred_requests_a_minute() -> None:
    policy = parse_policy(demo_policy("http://h").text.encode(), "headgate.yaml")
    limit = policy.tenants["demo"].limits[0]

    assert (limit.limit, limit.shape) == (100, Windowed(Per.MINUTE, CountedRequests()))
    assert limit.users == {"alice"}


def test_demo_keys_are_new_at_each_start() -> None:
    first, second = demo_policy("http://h"), demo_policy("http://h")

    assert not {key.secret for key in first.keys} & {key.secret for key in second.keys}


def test_a_policy_is_described_in_a_few_lines() -> None:
    assert (
        describe(load_policy(EXAMPLE))
        == """\
2 models, 2 tenants, 3 keys, 6 limits
model llama-8b: meta-llama/Llama-3.1-8B-Instruct at http://127.0.0.1:8000, 8192 tokens of context
model sql-expert: adapter lora-a on llama-8b
tenant acme (Europe/Berlin): 2 keys; llama-8b, sql-expert
  100000 tokens per day for each user
  100 requests per minute for each model and user
  8 requests in flight
  5000000 tokens per month, models sql-expert
  25.00 of cost per month for each user
tenant globex (UTC, weeks from Sunday): 1 key; llama-8b
  1000000 tokens per week"""
    )
