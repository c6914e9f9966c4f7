"""The forecast of `headgate plan` beside what the same traffic then measures on the simulator.

The simulator runs in its own time, so a busy machine changes no figure.
"""

import asyncio
import random
from collections.abc import Sequence

from bench.own_time import run_in_own_time
from bench.table import Table
from headgate.capacity.assumptions import Assumptions, assumed_traffic
from headgate.capacity.curve import ServiceCurve
from headgate.capacity.forecast import Objective, predict, quantile
from headgate.capacity.traffic import Arrival, Traffic
from headgate.core.clock import SystemClock
from headgate.simulator.app import Simulator
from headgate.simulator.exchange import Message
from headgate.simulator.prompts import BYTES_PER_TOKEN
from headgate.simulator.settings import Settings
from headgate.simulator.vllm_errors import to_json

WINDOW_S = 600.0
"""The default of `headgate plan --window`."""
ANY_TTFT = Objective(ttft_s=float("inf"))
"""No bound, so that all repetitions are played."""
CURVE = ServiceCurve(
    gpu="simulated",
    gpus=1,
    first_token_s=0.05,
    prefill_tokens_per_s=8_000,
    token_interval_s=0.01,
    slowdown_s=0.001,
    max_num_seqs=16,
    source="the simulator's own settings",
)
USERS = {"half": 60, "busy": 110, "nearly full": 130}
"""Active users of each run, with a request every 10 s."""


async def measure() -> Sequence[Table]:
    """One row for each load: the forecast's range, and the measured quantile."""
    rows = [await asyncio.to_thread(_row, name, users) for name, users in USERS.items()]
    columns = ("load", "forecast of p95", "range", "measured p95", "measured / forecast")
    note = "Time to the first token on one simulated pod. The second of two windows counts."
    return [Table("Capacity plan: forecast and replay", columns, rows, note)]


def _row(name: str, users: int) -> tuple[str | float, ...]:
    traffic = traffic_of(users, WINDOW_S)
    point = predict(traffic, CURVE, ANY_TTFT, 1.0, 1, seed=1)
    measured_s = quantile(replayed_ttft_s(traffic), ANY_TTFT.quantile)
    low, high = point.ttft_range_s
    return (
        f"{name}, {len(traffic.arrivals) / WINDOW_S:.1f} requests/s",
        f"{point.ttft_s:.3f} s",
        f"{low:.3f} to {high:.3f} s",
        f"{measured_s:.3f} s",
        measured_s / point.ttft_s,
    )


def traffic_of(users: int, window_s: float) -> Traffic:
    """The requests of a number of active users."""
    assumptions = Assumptions(
        users=users,
        active_share=1.0,
        pause_median_s=10.0,
        prompt_median_tokens=300,
        output_median_tokens=40,
        cached_share=0.0,
    )
    return assumed_traffic("tiny", assumptions, window_s, random.Random(users))


def replayed_ttft_s(traffic: Traffic) -> list[float]:
    """The times to the first token on the simulator, in the order of the requests.

    The window is played twice and the second time counts, as in the forecast.
    """
    return run_in_own_time(_replayed(traffic))


async def _replayed(traffic: Traffic) -> list[float]:
    settings = Settings(
        ttft_s=CURVE.first_token_s,
        token_interval_s=CURVE.token_interval_s,
        slowdown_s=CURVE.slowdown_s,
        prefill_tokens_per_s=CURVE.prefill_tokens_per_s,
        max_num_seqs=CURVE.max_num_seqs,
    )
    simulator = Simulator(settings, SystemClock())
    async with asyncio.TaskGroup() as group:
        _, second = [
            [
                group.create_task(_Request(each, late_s + each.at_s).play(simulator))
                for each in traffic.arrivals
            ]
            for late_s in (0.0, traffic.window_s)
        ]
    return [task.result() for task in second]


class _Request:
    """One stream of the simulator, called without a connection."""

    def __init__(self, arrival: Arrival, due_s: float) -> None:
        self._due_s = due_s
        prompt = f"{due_s:.17f}".ljust(arrival.prompt_tokens * BYTES_PER_TOKEN, "x")
        body = {"prompt": prompt, "max_tokens": arrival.output_tokens, "stream": True}
        self._messages = [
            {"type": "http.request", "body": to_json(body).encode(), "more_body": False}
        ]
        self._first_s: float | None = None

    async def play(self, simulator: Simulator) -> float:
        """Sends it at its time; the seconds to its first token."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._due_s - loop.time())
        headers = [(b"content-type", b"application/json")]
        head = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
        await simulator(head, self._receive, self._take)
        assert self._first_s is not None
        return self._first_s - self._due_s

    async def _receive(self) -> Message:
        if not self._messages:
            await asyncio.get_running_loop().create_future()  # the client stays
        return self._messages.pop()

    async def _take(self, message: Message) -> None:
        if message["type"] == "http.response.body" and self._first_s is None:
            self._first_s = asyncio.get_running_loop().time()
