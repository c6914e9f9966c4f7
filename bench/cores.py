"""How do a box's requests/s grow with its workers?

`headgate up` on the lean path with a Redis, whole requests through its Envoy. The clients and the
canned vLLM are those of `bench.peers`. Several of each share the load, so that they are not the
limit on a machine with enough cores.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from bench.main import run
from bench.peers.load import Load
from bench.peers.measures import WORKS
from bench.peers.processes import Place, Stack, free_port
from bench.peers.stacks.headgate import box
from bench.table import Cell, Table

WORKERS = (1, 2, 4, 8)
ROUNDS = 3
REQUESTS = 16_000
"""Of all clients together, in a turn of one stack."""
_CLIENTS = 4
_IN_FLIGHT = 16
"""Of each client."""
_UPSTREAMS = 3
_PARTS = ("services", "envoy", "stores")


@dataclass
class Turns:
    """The turns of one number of workers."""

    requests: int = 0
    taken_s: float = 0.0
    used_s: Counter[str] = field(default_factory=Counter)


async def measure(
    numbers: Sequence[int] = WORKERS, rounds: int = ROUNDS, requests: int = REQUESTS
) -> list[Table]:
    """A row for each number of workers, which take turns. The first round only warms up."""
    turns = {number: Turns() for number in numbers}
    with tempfile.TemporaryDirectory(prefix="hg-bench-") as name, ExitStack() as ending:
        place = Place(ending, Path(name), Path(name), free_port())
        _start_upstreams(place)
        boxes = {
            number: box(place, f"lean-{number}", path="lean", store="redis", workers=number)
            for number in numbers
        }
        for round_number in range(rounds + 1):
            for number, stack in boxes.items():
                turn = _turn(stack, requests)
                if round_number:
                    turns[number].requests += turn.requests
                    turns[number].taken_s += turn.taken_s
                    turns[number].used_s += turn.used_s
    return [_table(turns)]


def _start_upstreams(place: Place) -> None:
    """They share one port, and the kernel shares the connections among them."""
    command = [sys.executable, "-m", "bench.peers.upstream", place.upstream_port]
    for number in range(_UPSTREAMS):
        process = place.start(command, f"upstream-{number}")
        place.wait_for(place.upstream_port, process, f"upstream-{number}")


def _turn(stack: Stack, requests: int) -> Turns:
    work = replace(WORKS["short"], requests=requests // _CLIENTS, in_flight=_IN_FLIGHT)
    order = msgspec.json.encode(work.order(stack))
    before = stack.used_s()
    clients = [_client(order) for _ in range(_CLIENTS)]
    loads = [msgspec.json.decode(client.communicate()[0], type=Load) for client in clients]
    used_s = Counter({part: used - before[part] for part, used in stack.used_s().items()})
    if refused := [load.sample for load in loads if set(load.statuses) != {"200"}]:
        raise RuntimeError(f"{stack.name} answered {refused[0][-200:]}")
    answered = sum(load.statuses["200"] for load in loads)
    return Turns(answered, max(load.taken_s for load in loads), used_s)


def _client(order: bytes) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.peers.load"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
    assert client.stdin is not None
    client.stdin.write(order)
    client.stdin.close()
    client.stdin = None
    return client


def _table(turns: dict[int, Turns]) -> Table:
    first = next(iter(turns.values()))
    rows: list[tuple[Cell, ...]] = []
    for number, turn in turns.items():
        rate = turn.requests / turn.taken_s
        costs = [round(turn.used_s[part] / turn.requests * 1e6) for part in _PARTS]
        cores = [turn.used_s[part] / turn.taken_s for part in _PARTS]
        growth = rate / (first.requests / first.taken_s)
        rows.append((number, round(rate), growth, *costs, *cores))
    costs_of = [f"{part}, us a request" for part in _PARTS]
    cores_of = [f"{part}, cores" for part in _PARTS]
    columns = ("workers", "requests/s", "against the first", *costs_of, *cores_of)
    note = f"{_CLIENTS} clients with {_IN_FLIGHT} requests in flight each, on the same machine."
    return Table("Requests of a lean box with Redis by its workers", columns, rows, note)


if __name__ == "__main__":
    run({"cores": measure})
