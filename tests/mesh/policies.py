"""The policy of the mesh's tests."""

from tests.box import KEYS, digest

MODEL = """
models:
  llama-8b:
    upstream: http://llama-8b.vllm.svc.cluster.local:8000
    context_tokens: 8192
    forces_usage: true
    prices: {input: 0.20, cached_input: 0.05, output: 0.60}
"""


def policy(limits: str = "", model: str = MODEL) -> str:
    """A tenant with the users alice and bob, and `limits`."""
    return f"""{model}
tenants:
  acme:
    models: [llama-8b]
    keys:
      - {{id: alice-key, user: alice, sha256: "{digest(KEYS["alice"])}"}}
      - {{id: bob-key, user: bob, sha256: "{digest(KEYS["bob"])}"}}
    limits: {limits or "[]"}
"""
