"""`headgate replay`: recorded requests under a new policy, as a table or JSON."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headgate.core.policy import CompiledPolicy
from headgate.core.record_lines import files_size_bytes
from headgate.policy import limit_text
from headgate.replay.records import Records, in_time_order
from ratelimit.replay import Gone, Recorded, Replay, Replayed, ReplayRow

_STEP = 1_000
_HEADINGS = ("tenant", "user", "model", "requests", "would be refused", "share", "by which limit")


class Progress(Protocol):
    """Shows the progress of one step that is `length` units long; yields what advances it."""

    def __call__(
        self, label: str, length: int, /
    ) -> AbstractContextManager[Callable[[int], None]]: ...


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The records that were read, and the decisions on them under the policy."""

    records: Records
    replayed: Replayed
    policy: CompiledPolicy

    @property
    def rows(self) -> list[tuple[tuple[str, str, str], ReplayRow]]:
        """By tenant, user and model; the most refusals come first."""
        return sorted(self.replayed.rows.items(), key=lambda item: (-item[1].refused, item[0]))

    @property
    def total(self) -> ReplayRow:
        """All rows together."""
        rows = self.replayed.rows.values()
        return ReplayRow(
            requests=sum(row.requests for row in rows),
            refused=sum(row.refused for row in rows),
            refused_when_recorded=sum(row.refused_when_recorded for row in rows),
        )

    def limits(self, tenant: str, row: ReplayRow) -> list[tuple[str, str, int]]:
        """Id, text and refusals of each limit that would refuse; the most refusals come first."""
        texts = {limit.id: limit_text(limit) for limit in self.policy.tenants[tenant].limits}
        return [(name, texts[name], count) for name, count in row.by_limit.most_common()]


def replay_files(paths: Sequence[Path], policy: CompiledPolicy, progress: Progress) -> ReplayReport:
    """Replays the usage records of these files under a policy, in bounded memory.

    Raises OperatorError when a file cannot be read.
    """
    records, replay = Records(), Replay(policy)
    with ExitStack() as stack:
        with progress("reading", files_size_bytes(tuple(paths))) as advance:
            requests = (request for path in paths for request in records.read(path, advance))
            ordered = stack.enter_context(in_time_order(requests))
        with progress("replaying", records.requests) as advance:
            asyncio.run(replay.run(_counted(ordered, advance)))
    return ReplayReport(records, replay.replayed, policy)


def _counted(requests: Iterable[Recorded], advance: Callable[[int], None]) -> Iterator[Recorded]:
    for number, request in enumerate(requests, 1):
        yield request
        if number % _STEP == 0:
            advance(_STEP)


def as_json(report: ReplayReport) -> str:
    """The whole report as one JSON object."""
    total = report.total
    rows = [
        {
            "tenant": tenant,
            "user": user,
            "model": model,
            **_numbers(row),
            "limits": [
                {"id": name, "limit": text, "refused": count}
                for name, text, count in report.limits(tenant, row)
            ],
        }
        for (tenant, user, model), row in report.rows
    ]
    document = {
        **_numbers(total),
        "rows": rows,
        "gone": {gone: report.replayed.gone[gone] for gone in Gone},
        "repeated": report.replayed.repeated,
        "never_at_limits": report.records.never_at_limits,
        "bad_lines": report.records.bad_lines,
        "bad": report.records.bad,
    }
    return json.dumps(document, indent=2)


def _numbers(row: ReplayRow) -> dict[str, int | float]:
    return {
        "requests": row.requests,
        "refused": row.refused,
        "share": round(_share(row), 6),
        "refused_when_recorded": row.refused_when_recorded,
    }


def _share(row: ReplayRow) -> float:
    return row.refused / row.requests if row.requests else 0.0


def as_table(report: ReplayReport) -> str:
    """A summary, a line for each user and model with refusals, and the counts left out."""
    total = report.total
    lines = [
        f"{total.requests:,} requests, {total.refused:,} would be refused"
        f" ({_share(total):.1%}); {total.refused_when_recorded:,} were when recorded"
    ]
    refused = [(caller, row) for caller, row in report.rows if row.refused]
    if refused:
        cells = [_cells(report, caller, row) for caller, row in refused]
        lines += ["", *_aligned([_HEADINGS, *cells]), ""]
    lines += _left_out(report, len(report.rows) - len(refused))
    return "\n".join(lines)


def _cells(report: ReplayReport, caller: tuple[str, str, str], row: ReplayRow) -> tuple[str, ...]:
    limits = "; ".join(f"{text}: {count:,}" for _, text, count in report.limits(caller[0], row))
    return (*caller, f"{row.requests:,}", f"{row.refused:,}", f"{_share(row):.1%}", limits)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width; numbers are aligned at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = range(3, 6)
    return [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _left_out(report: ReplayReport, unharmed: int) -> list[str]:
    replayed, records = report.replayed, report.records
    counts = {
        "users and models would not be refused once": unharmed,
        "requests not replayed: the policy has no such tenant": replayed.gone[Gone.TENANT],
        "requests not replayed: no key of that user in the policy": replayed.gone[Gone.USER],
        "requests not replayed: the tenant may not use that model": replayed.gone[Gone.MODEL],
        "records are there more than once and count once": replayed.repeated,
        "records never came to the limits: refused before, or lists": records.never_at_limits,
        "lines are no usage records and were left out": records.bad_lines,
    }
    return [f"{count:,} {text}" for text, count in counts.items() if count]
