"""Boxes for the matrix: a user for each API, whose limits count and refuse nobody."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.box import Box, digest, running_box
from tests.matrix.cells import matrix
from tests.matrix.judge import FLAT_TOKENS

_KEY = "    - {{id: {api}-key, user: {api}, sha256: {digest}}}\n"
_POLICY = """
models:
  tiny: {{upstream: "{upstream}", context_tokens: 8192, forces_usage: {forces_usage}}}
tenants:
  acme:
    models: [tiny]
    limits:
      - {{count: tokens, limit: 50000000, per: year, each: user}}
      - {{count: requests, limit: 1000000, per: year, each: user}}
      - {{count: concurrent, limit: 5000, each: user}}
    keys:
{keys}
without_usage: {{count_tokens: estimate, tokenize: {flat}}}
"""


def key_of(api: str) -> str:
    """The key of the user who asks this API."""
    return f"sk-matrix-{api}-0123456789abcdef"


@contextmanager
def matrix_box(folder: Path, upstream: str, forces_usage: bool, counting: str) -> Iterator[Box]:
    """A box that counts so, in front of an upstream that always sends usage or does not."""
    keys = "".join(_KEY.format(api=api, digest=digest(key_of(api))) for api in matrix().axes["api"])
    text = _POLICY.format(
        upstream=upstream, forces_usage=str(forces_usage).lower(), keys=keys, flat=FLAT_TOKENS
    )
    with running_box(folder, text, "--counting", counting) as box:
        yield box
