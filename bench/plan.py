"""The forecast of `headgate plan` beside what the same traffic then measures on the simulator."""

import asyncio
import random
from collections.abc import Sequence

import httpx

from bench.table import Table
from headgate.capacity.assumptions import Assumptions, assumed_traffic
from headgate.capacity.curve import ServiceCurve
from headgate.capacity.forecast import Objective, predict, quantile
from headgate.capacity.traffic import Arrival, Traffic
from headgate.simulator.prompts import BYTES_PER_TOKEN
from headgate.simulator.server import running
from headgate.simulator.settings import Settings

WINDOW_S = 40.0
OBJECTIVE = Objective(ttft_s=1.0)
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
USERS = {"half": 60, "busy": 110, "nearly full": 150}
"""Active users of each run, with a request every 10 s."""


async def measure() -> Sequence[Table]:
    """One row for each load: the forecast's range, and the measured quantile."""
    rows = []
    for name, users in USERS.items():
        assumptions = Assumptions(
            users=users,
            active_share=1.0,
            pause_median_s=10.0,
            prompt_median_tokens=300,
            output_median_tokens=40,
            cached_share=0.0,
        )
        traffic = assumed_traffic("tiny", assumptions, WINDOW_S, random.Random(users))
        point = predict(traffic, CURVE, OBJECTIVE, 1.0, 1, seed=1)
        measured_s = await _replayed(traffic)
        ratio = measured_s / point.ttft_s
        low, high = point.ttft_range_s
        rows.append(
            (
                f"{name}, {len(traffic.arrivals) / WINDOW_S:.1f} requests/s",
                f"{point.ttft_s:.3f} s",
                f"{low:.3f} to {high:.3f} s",
                f"{measured_s:.3f} s",
                ratio,
            )
        )
    columns = ("load", "forecast of p95", "range", "measured p95", "measured / forecast")
    note = "Time to the first token on one simulated pod. The second of two windows counts."
    return [Table("Capacity plan: forecast and replay", columns, rows, note)]


async def _replayed(traffic: Traffic) -> float:
    settings = Settings(
        ttft_s=CURVE.first_token_s,
        token_interval_s=CURVE.token_interval_s,
        slowdown_s=CURVE.slowdown_s,
        prefill_tokens_per_s=CURVE.prefill_tokens_per_s,
        max_num_seqs=CURVE.max_num_seqs,
    )
    limits = httpx.Limits(max_connections=None)
    async with (
        running(settings, "127.0.0.1", 0) as url,
        httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client,
        asyncio.TaskGroup() as group,
    ):
        begin_s = asyncio.get_running_loop().time()
        passes = (0.0, traffic.window_s)
        tasks = [
            [
                group.create_task(_request(client, each, begin_s + late_s))
                for each in traffic.arrivals
            ]
            for late_s in passes
        ]
    return quantile([task.result() for task in tasks[1]], OBJECTIVE.quantile)


async def _request(client: httpx.AsyncClient, arrival: Arrival, begin_s: float) -> float:
    """Sends one request at its time; the seconds to its first token."""
    loop = asyncio.get_running_loop()
    due_s = begin_s + arrival.at_s
    await asyncio.sleep(due_s - loop.time())
    body = {
        "model": "tiny",
        "prompt": f"{random.random():.17f}".ljust(arrival.prompt_tokens * BYTES_PER_TOKEN, "x"),
        "max_tokens": arrival.output_tokens,
        "stream": True,
    }
    first_s = 0.0
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for _ in answer.aiter_raw():
            first_s = first_s or loop.time()
    return first_s - due_s
