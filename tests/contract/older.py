"""Settles as a replica of the release 0.1.0 does, which may run beside newer ones."""

from contextlib import closing
from pathlib import Path

from tests.ratelimit.builders import NOW_S, Shop
from tests.redis_server import RedisServer

_TESTS = Path(__file__).parents[1]
_STORE = _TESTS.parent / "ratelimit" / "store"


def settle_as_0_1_0(server: RedisServer, shop: Shop, reservation: str, use: list[int]) -> int:
    """The outcome of the release's own script. `use` has four numbers: it knows no others."""
    parts = [_STORE / "numbers.lua", _STORE / "bucket.lua", _TESTS / "compat/0.1.0/settle.lua"]
    script = "\n".join(part.read_text() for part in parts)
    record = f"{{hg:{shop.tenant}}}r:{reservation}"
    with closing(server.client()) as client:
        outcome, _ = client.eval(script, 1, record, *map(str, use), str(int(NOW_S * 1000)), "60000")
    return int(outcome)
