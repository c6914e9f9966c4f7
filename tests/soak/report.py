"""The output of a soak: a line now and then, and a Markdown table at the end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.faults import Faults
from tests.soak.ledger import Finding
from tests.soak.load import Load
from tests.soak.watch import Memory, Watch, memory

GROWTH = 0.03
GROWTH_BYTES = 2e6
"""The most by which memory may grow from the middle third of a soak to its last: as a part,
or in bytes for a small process."""
_JUDGED_FROM_S = 600.0
"""A shorter soak is all warm-up: its memory is told, not judged."""
_MB = 1e6


def progress(load: Load, faults: Faults, watch: Watch, passed_s: float) -> str:
    """One line: how much was asked, what came of it, and the memory of each process."""
    statuses = Counter(sent.status for sent in load.sent if sent.ended_s)
    shown = " ".join(f"{status}:{count}" for status, count in statuses.most_common())
    sizes = " ".join(
        f"{name} {sample.rss_bytes / _MB:.0f}" for name, sample in watch.latest().items()
    )
    return (
        f"{passed_s:6.0f} s  {len(load.sent)} sent, {len(load.running)} run,"
        f" {load.skipped} skipped  {shown}  {len(faults.kills)} kills, {faults.flushes} flushes"
        f"  MB: {sizes}"
    )


REDIS_DATA = "redis, its data"


def memories(watch: Watch, span: tuple[float, float]) -> dict[str, Memory]:
    """By name, of the processes that lived through the middle and the last third."""
    found = {name: memory(taken, *span) for (name, _), taken in watch.samples.items()}
    found[REDIS_DATA] = memory(watch.data, *span)
    return {name: of_process for name, of_process in found.items() if of_process is not None}


def memory_finding(watch: Watch, span: tuple[float, float]) -> Finding:
    """Redis is judged by its data: how much freed memory an allocator keeps is its build's."""
    judged = span[1] - span[0] >= _JUDGED_FROM_S
    grown = {name: memory for name, memory in memories(watch, span).items() if name != "redis"}
    figures = ", ".join(f"{name} {memory.growth:+.1%}" for name, memory in grown.items())
    return Finding(
        f"memory grows by at most {GROWTH:.0%} or {GROWTH_BYTES / _MB:g} MB from the middle third"
        " to the last",
        not judged or all(_is_flat(memory) for memory in grown.values()),
        figures + ("" if judged else " (too short to judge)"),
    )


def _is_flat(memory: Memory) -> bool:
    return memory.growth <= GROWTH or memory.last - memory.middle <= GROWTH_BYTES


@dataclass(frozen=True, slots=True)
class Course:
    """How a soak went: `rate` as planned, `span` of the load by the monotonic clock.

    `used` is how many processors all of it used, the clients too.
    """

    rate: float
    took_s: float
    used: float
    load: Load
    faults: Faults
    watch: Watch
    span: tuple[float, float]


def table(course: Course, findings: Sequence[Finding]) -> str:
    """Markdown: the load, the memory, the rules."""
    load, faults, took_s = course.load, course.faults, course.took_s
    kinds = Counter(sent.kind.ending for sent in load.sent if sent.status in (200, None))
    refused = Counter(sent.status for sent in load.sent if sent.status not in (200, None))
    lines = [
        "",
        f"{took_s / 60:.1f} minutes, {course.rate:g} requests a second offered,"
        f" {len(load.sent) / took_s:.1f} made ({load.skipped} skipped);"
        f" {len(faults.kills)} replicas killed, {faults.flushes} times SCRIPT FLUSH;"
        f" {course.used:.2f} processors used, clients and upstreams included.",
        f"{kinds['complete']:,} complete answers, {kinds['left']:,} left by their client,"
        f" {kinds['broken']:,} broken off by the upstream; refused: "
        + ", ".join(f"{count:,} with {status}" for status, count in refused.most_common()),
        "",
        "| process | first third, MB | middle third | last third | growth | CPU, s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    cpu = {name: taken[-1].cpu_s for (name, _), taken in course.watch.samples.items()}
    for name, process in memories(course.watch, course.span).items():
        sizes_mb = (size / _MB for size in (process.first, process.middle, process.last))
        sizes = " | ".join(f"{size_mb:.1f}" for size_mb in sizes_mb)
        used = f"{cpu[name]:.0f}" if name in cpu else ""
        lines.append(f"| {name} | {sizes} | {process.growth:+.1%} | {used} |")
    lines += ["", "| rule | held | figures |", "|---|---|---|"]
    for found in findings:
        holds, figures = "yes" if found.holds else "**NO**", found.figures.replace("|", "/")
        lines.append(f"| {found.rule} | {holds} | {figures} |")
    return "\n".join(lines)
