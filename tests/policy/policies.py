"""Small policies that tests begin from."""

from pathlib import Path

from headgate.core.policy import CompiledPolicy
from headgate.policy import PolicyError, load_policy, parse_policy

DIGEST = "0123456789abcdef" * 4

MODELS = """\
models:
  tiny: {upstream: "http://127.0.0.1:8000", context_tokens: 8192}
  sql-expert: {base: tiny, adapter: lora-a}
"""


def with_limits(*limits: str) -> CompiledPolicy:
    """A tenant acme with the key of alice, both models, and these limits."""
    text = (
        MODELS.replace("8192}", "8192, prices: {input: 0.20, cached_input: 0.05, output: 0.60}}")
        + f"""\
tenants:
  acme:
    models: [tiny, sql-expert]
    keys: [{{user: alice, sha256: "{DIGEST}"}}]
    limits: [{", ".join(limits)}]
"""
    )
    return parse_policy(text.encode(), "headgate.yaml")


def problems_of(path: Path) -> list[str]:
    """Every mistake of the policy file, one line each."""
    try:
        load_policy(path)
    except PolicyError as error:
        return list(error.problems)
    return []


def with_tenants(*names: str) -> str:
    """A good policy with these tenants."""
    return MODELS + "tenants:\n" + "".join(f"  {name}: {{models: [tiny]}}\n" for name in names)
