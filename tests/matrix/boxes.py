"""A box for the matrix: a user for each API, whose limits count and refuse nobody."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.box import Box, digest, running_box
from tests.matrix.cells import matrix
from tests.matrix.judge import FLAT_TOKENS, TOKENS_PER_SECOND

_KEY = "    - {{id: {api}-key, user: {api}, sha256: {digest}}}\n"
_POLICY = """
models:
  tiny: {{upstream: "{asked}", context_tokens: 8192, forces_usage: {tiny_forces}}}
  forced: {{upstream: "{forces}", context_tokens: 8192, forces_usage: true}}
tenants:
  acme:
    models: [tiny, forced]
    limits:
      - {{count: tokens, limit: 50000000, per: year, each: [user, model]}}
      - {{count: requests, limit: 1000000, per: year, each: [user, model]}}
      - {{count: concurrent, limit: 5000, each: [user, model]}}
    keys:
{keys}
without_usage: {{count_tokens: estimate, tokenize: {flat}, translations: {flat},
  transcriptions: {{tokens_per_second: {second}}}}}
"""


def key_of(api: str) -> str:
    """The key of the user who asks this API."""
    return f"sk-matrix-{api}-0123456789abcdef"


@contextmanager
def matrix_box(
    folder: Path, upstreams: Mapping[str, str], counting: str, *, tiny_forces_usage: bool = False
) -> Iterator[Box]:
    """A box that counts so, in front of the upstreams by the word of the axis `vllm`."""
    keys = "".join(_KEY.format(api=api, digest=digest(key_of(api))) for api in matrix().axes["api"])
    text = _POLICY.format(
        **upstreams,
        keys=keys,
        flat=FLAT_TOKENS,
        second=TOKENS_PER_SECOND,
        tiny_forces=str(tiny_forces_usage).lower(),
    )
    with running_box(folder, text, "--counting", counting) as box:
        yield box
