"""A healthy past for Prometheus: without one, every long window would see the fault alone.

The counters of a healthy box are drawn back over an hour at the rates that they had while it warmed
up. The recorded rates of 5 minutes, which the windows of days are means of, reach back three days.
"""

import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

HOUR_S = 3600
STEP_S = 15
DAYS_S = 3 * 24 * HOUR_S
RECORDED_STEP_S = 300


@dataclass(frozen=True, slots=True)
class Target:
    """What one scrape target showed at the end of a healthy time of `healthy_s` seconds."""

    labels: Mapping[str, str]
    text: str
    healthy_s: float


def write_history(folder: Path, data: Path, promtool: str, targets: Iterable[Target]) -> None:
    """Fills `data`, the folder of a Prometheus that does not run yet.

    `folder` has the rules that it will have, in rules.yml: series that they do not read are left
    out.
    """
    read = frozenset(re.findall(r"[a-z_:]+", (folder / "rules.yml").read_text(encoding="utf-8")))
    file = folder / "history.om"
    now_s = int(time.time()) - 1
    with file.open("w", encoding="utf-8") as out:
        rates: dict[str, float] = {}
        for target in targets:
            out.writelines(_past(target, read, now_s, rates))
        out.writelines(_recorded(rates, now_s))
        out.write("# EOF\n")
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(file), str(data)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _past(
    target: Target, read: frozenset[str], now_s: int, rates: dict[str, float]
) -> Iterator[str]:
    times = range(now_s - HOUR_S, now_s, STEP_S)
    yield from (f"{_series('up', target.labels)} 1 {at_s}\n" for at_s in times)
    for family in text_string_to_metric_families(target.text):
        for sample in family.samples:
            if sample.name not in read:
                continue
            series = _series(sample.name, {**sample.labels, **target.labels})
            per_s = sample.value / target.healthy_s
            is_gauge = family.type not in ("counter", "histogram")
            if sample.name == "headgate_answers_total" and sample.labels["model"] != "-":
                rates[sample.labels["model"]] = rates.get(sample.labels["model"], 0) + per_s
            for at_s in times:
                value = sample.value if is_gauge else per_s * (at_s - times.start)
                yield f"{series} {value} {at_s}\n"


def _recorded(rates: Mapping[str, float], now_s: int) -> Iterator[str]:
    for model, per_s in rates.items():
        for name in ("requests", "errors", "first_outputs", "late_outputs"):
            series = _series(f"headgate:{name}:rate5m", {"model": model})
            value = per_s if name in ("requests", "first_outputs") else 0
            for at_s in range(now_s - DAYS_S, now_s, RECORDED_STEP_S):
                yield f"{series} {value} {at_s}\n"


def _series(name: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
