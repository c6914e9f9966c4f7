"""The comparison as a table for people, and as JSON for programs."""

import json

from headgate.canary.compare import Comparison, Thresholds, Verdict, outcome
from headgate.canary.queries import ModelPart

_HEAD = ("", "stable", "canary", "ratio", "samples", "verdict")


def as_table(
    stable: ModelPart, canary: ModelPart, rows: list[Comparison], limits: Thresholds
) -> str:
    """Aligned columns: the parts that are compared above them, the thresholds below."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [_aligned(line, widths) for line in cells]
    title = f"{stable.model}: stable {stable.name}, canary {canary.name}, last {stable.window}"
    return "\n".join([title, "", *lines, "", _thresholds(limits), f"verdict: {_verdict(rows)}"])


def as_json(
    stable: ModelPart, canary: ModelPart, rows: list[Comparison], limits: Thresholds
) -> str:
    """Numbers in their base units: seconds, and rates from 0 to 1. null where there is no data."""
    document = {
        "model": stable.model,
        "stable": stable.name,
        "canary": canary.name,
        "window": stable.window,
        "min_samples": limits.min_samples,
        "verdict": outcome(rows),
        "rows": [
            {
                "name": row.name,
                "stable": row.stable,
                "canary": row.canary,
                "ratio": row.ratio,
                "stable_samples": row.stable_samples,
                "canary_samples": row.canary_samples,
                "verdict": row.verdict,
                "why": row.why,
            }
            for row in rows
        ],
    }
    return json.dumps(document, indent=2)


def _cells(row: Comparison) -> tuple[str, ...]:
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
    counts = (row.stable_samples, row.canary_samples)
    samples = "-" if counts == (None, None) else " / ".join(_count(count) for count in counts)
    return (
        row.name,
        _value(row.stable, row.unit),
        _value(row.canary, row.unit),
        ratio,
        samples,
        _judgement(row),
    )


def _judgement(row: Comparison) -> str:
    if not row.why:
        return row.verdict
    return row.why if row.verdict is Verdict.SHOWN else f"{row.verdict}: {row.why}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "%":
        return f"{value:.2%}"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 10 else f"{value:.1f} s"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    name, *numbers = (
        cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([name, *numbers]).rstrip()


def _thresholds(limits: Thresholds) -> str:
    return (
        f"worse: errors surely above {limits.error_rate:.0%} or above stable (95 % intervals);"
        f" TTFT or time per token above {limits.latency_ratio:g} of stable; a queue above"
        f" {limits.waiting:g} and twice stable's;\nKV cache above {limits.kv_cache:.0%}."
        f" Each needs {limits.min_samples} samples of either part. Lines without a verdict"
        " are for you to read."
    )


def _verdict(rows: list[Comparison]) -> str:
    verdict = outcome(rows)
    return "the canary is not worse" if verdict is Verdict.OK else verdict
