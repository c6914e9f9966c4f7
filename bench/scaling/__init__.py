"""Autoscaling, by simulation: what a day costs in late answers and in GPU hours."""

from collections.abc import Sequence

from bench.scaling.autoscaler import BEFORE, QUEUE_ONLY, Rules, shipped
from bench.scaling.run import Outcome, run_day
from bench.scaling.spot import NO_SPOT, PRICE, Spot
from bench.scaling.trace import Day
from bench.table import Table

DAYS = (
    Day(name="a day"),
    Day(name="long prompts at ten", hours=(0, 16), job=None, long_prompts=(10, 11.5)),
    Day(name="no metrics of vLLM at ten", hours=(0, 17), job=None, blind=(9.5, 11.5)),
)
SPOTS = {
    "none": NO_SPOT,
    "4 of 5, preStop": Spot(share=0.8),
    "4 of 5, no preStop": Spot(share=0.8, drains=False),
    "all, preStop": Spot(share=1.0),
}


async def measure(days: Sequence[Day] = DAYS) -> Sequence[Table]:
    """Ways of scaling on each day, and the first day again with spot GPUs."""
    ours = shipped()
    ways: dict[str, Rules | int] = {
        f"always {ours.most} pods": ours.most,
        "queue only": QUEUE_ONLY,
        "as before": BEFORE,
        "istio/components/keda": ours,
    }
    rows = [
        (f"{day.name}, {name}", *_cells(run_day(day, rules)))
        for day in days
        for name, rules in ways.items()
    ]
    columns = ("day and way", "requests", "missed", "refused", "GPU hours", "started", "flaps")
    note = (
        "Missed: the first token after 1 s, or no answer. Flaps: pods that were taken away within"
        " half an hour of another's start, or the reverse."
    )
    return [Table("Scaling", columns, rows, note), _spot_table(days[0], ours)]


def _cells(outcome: Outcome) -> tuple[str | int, ...]:
    return (
        outcome.requests,
        f"{outcome.missed:.2%}",
        outcome.refused,
        f"{outcome.pod_hours:.0f}",
        outcome.started,
        outcome.flaps,
    )


def _spot_table(day: Day, rules: Rules) -> Table:
    rows = []
    for name, spot in SPOTS.items():
        outcome = run_day(day, rules, spot)
        full_hours = outcome.pod_hours - (1 - PRICE) * outcome.spot_hours
        hours = f"{outcome.pod_hours:.0f}"
        missed = f"{outcome.missed:.2%}"
        rows.append((name, missed, outcome.refused, outcome.cut, hours, f"{full_hours:.0f}"))
    columns = ("on spot", "missed", "refused", "cut answers", "GPU hours", "at the full price")
    note = f"The same day and rules. A spot GPU costs {PRICE:.0%} of the full price."
    return Table("Scaling with spot GPUs", columns, rows, note)
