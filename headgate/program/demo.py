"""The policy of `headgate up --demo` for the simulator, with keys made at each start."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from string import Template

from headgate.core.keys import new_key

DEMO_MODEL = "tiny"
DEMO_ADAPTER = "lora-a"

_POLICY = Template(
    """\
# The policy of `headgate up --demo`. Its keys are new at each start.
currency: EUR
models:
  $model:
    upstream: $upstream
    context_tokens: 8192
    prices: {input: 2.50, cached_input: 0.50, output: 10.00}
  sql-expert:
    base: $model
    adapter: $adapter

tenants:
  demo:
    timezone: Europe/Berlin
    models: [$model, sql-expert]
    keys:
      - {id: alice-demo, user: alice, sha256: "$alice"}
      - {id: bob-demo, user: bob, sha256: "$bob"}
    limits:
      - {count: requests, limit: 100, per: minute, users: [alice]}
      - {count: tokens, limit: 1000000, per: day, each: user}
      - {count: concurrent, limit: 64}
      - {count: cost, limit: 5, per: month}
  globex:
    models: [$model]
    keys:
      - {id: carol-demo, user: carol, sha256: "$carol"}
    limits:
      - {count: tokens, limit: 9000000, per: month}
      - {count: cost, limit: 14, per: month}
  # Two tenants of the made-up month in the console. They have no keys.
  acme:
    timezone: Europe/Berlin
    models: [$model, sql-expert]
    limits:
      - {count: tokens, limit: 200000, per: minute}
      - {count: cost, limit: 10, per: month, notify: [50, 80, 100, forecast]}
      - {count: tokens, limit: 250000, per: day, each: user}
  initech:
    models: [$model]
    limits:
      - {count: tokens, limit: 3000000, per: day}
      - {count: cost, limit: 8, per: month, notify: [80, 100]}

# A small part of a GPU: the traffic of the made-up months fills much of it.
showback: {timezone: Europe/Berlin}
cost_pools:
  gpu-slice: {kind: reserved, models: [$model], hour_price: 0.058, pods: 1, full_tokens_per_s: 7}
  host:
    {kind: owned, models: [$model], hardware: 360, hardware_months: 36, power_kw: 0.05,
     kwh_price: 0.31}
cloud_prices:
  list-a: {day: 2026-10-01, models: {$model: {input: 6.00, cached_input: 1.50, output: 21.00}}}
  list-b: {day: 2026-10-01, models: {$model: {input: 0.80, output: 3.20}}}
"""
)


@dataclass(frozen=True, slots=True)
class DemoKey:
    """A key to print: its owner, and a note on what it shows."""

    secret: str = field(repr=False)
    tenant: str
    user: str
    note: str


@dataclass(frozen=True, slots=True)
class Demo:
    """The policy file's text, its keys in the order to print, and the model to request."""

    text: str
    keys: tuple[DemoKey, ...]
    model: str = DEMO_MODEL


def demo_policy(upstream_url: str, random_bytes: Callable[[int], bytes] = os.urandom) -> Demo:
    """The demo's policy in front of a vLLM or simulator that serves `tiny` and adapter `lora-a`."""
    alice, bob, carol = (new_key(random_bytes) for _ in range(3))
    text = _POLICY.substitute(
        model=DEMO_MODEL,
        adapter=DEMO_ADAPTER,
        upstream=upstream_url,
        alice=alice.digest.hex(),
        bob=bob.digest.hex(),
        carol=carol.digest.hex(),
    )
    keys = (
        DemoKey(alice.secret, "demo", "alice", "100 requests a minute, to see a 429"),
        DemoKey(bob.secret, "demo", "bob", "1,000,000 tokens a day"),
        DemoKey(carol.secret, "globex", "carol", "another tenant, without the adapter sql-expert"),
    )
    return Demo(text, keys)
