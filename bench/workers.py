"""Do more workers answer more calls?

`headgate serve` with a Redis answers the Check of ext_authz, which asks no store. A client in a
process of its own keeps 48 calls in flight on four connections, without an Envoy.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import uvloop

from bench.grpc_server import LoadingClient
from bench.main import run
from bench.measure import cpu_s
from bench.table import Cell, Table
from tests.box import KEYS, policy, worker_pids
from tests.envoy.fleet import Fleet, fleet_to_start, services
from tests.extauthz.builders import check_request

WORKERS = (1, 2)
ROUNDS = 5
CALLS = 20_000
_LOAD = "--load"
_CONNECTIONS = 4
_IN_FLIGHT = 12
_UPSTREAM = "http://127.0.0.1:9"


@dataclass
class Turns:
    """The turns of one number of workers: calls, time, and processor time of all processes."""

    pids: Sequence[int]
    calls: int = 0
    taken_s: float = 0.0
    cpu_s: float = 0.0

    def used_s(self) -> float:
        """The processor time that these processes have used so far."""
        return sum(map(cpu_s, self.pids))


async def measure(
    numbers: Sequence[int] = WORKERS, rounds: int = ROUNDS, calls: int = CALLS
) -> list[Table]:
    """A row for each number of workers, which take turns."""
    with ExitStack() as stack:
        turns: dict[int, Turns] = {}
        sockets: dict[int, Path] = {}
        for number in numbers:
            fleet = stack.enter_context(_serving(number))
            turns[number] = Turns(_pids(fleet))
            sockets[number] = fleet.socket(1)
        for round_number in range(rounds + 1):
            for number, turn in turns.items():
                before_s = turn.used_s()
                taken_s = _loaded(sockets[number], calls)
                if round_number:  # the first round only warms up
                    turn.calls += calls
                    turn.taken_s += taken_s
                    turn.cpu_s += turn.used_s() - before_s
    return [_table(turns)]


@contextmanager
def _serving(workers: int) -> Iterator[Fleet]:
    with (
        tempfile.TemporaryDirectory(prefix="hg-bench-") as name,
        fleet_to_start(Path(name), policy(_UPSTREAM), _UPSTREAM, 1) as fleet,
    ):
        fleet.options = ["--workers", str(workers)]
        fleet.start_services()
        yield fleet


def _pids(fleet: Fleet) -> list[int]:
    """The processes that answer: the workers, or the services themselves."""
    parent = fleet.processes[services()].pid
    return worker_pids(parent) or [parent]


def _loaded(socket: Path, calls: int) -> float:
    """Sends the calls from a process of its own; the seconds from the first to the last answer."""
    command = [sys.executable, "-m", "bench.workers", _LOAD, str(socket), str(calls)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603


async def _load(socket: str, calls: int) -> float:
    key = f"Bearer {KEYS['alice']}".encode()
    message = check_request(("authorization", key)).SerializeToString()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(_CONNECTIONS):
        _, client = await loop.create_unix_connection(lambda: LoadingClient(message), socket)
        clients.append(client)
    start_s = perf_counter()
    await asyncio.gather(*(client.load(calls // _CONNECTIONS, _IN_FLIGHT) for client in clients))
    return perf_counter() - start_s


def _table(turns: dict[int, Turns]) -> Table:
    first = next(iter(turns.values()))
    first_rate, first_each_s = first.calls / first.taken_s, first.cpu_s / first.calls
    rows: list[tuple[Cell, ...]] = []
    for number, turn in turns.items():
        rate, each_s = turn.calls / turn.taken_s, turn.cpu_s / turn.calls
        busy = turn.cpu_s / turn.taken_s
        rows.append((number, round(rate), rate / first_rate, busy, each_s / first_each_s))
    return Table(
        "Calls of ext_authz by the number of workers",
        ("workers", "calls a second", "against the first", "cores that they used", "CPU a call"),
        rows,
        "CPU a call is a ratio to the first row. The client takes cores of the same machine.",
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [_LOAD]:
        print(uvloop.run(_load(sys.argv[2], int(sys.argv[3]))))
    else:
        run({"workers": measure})
