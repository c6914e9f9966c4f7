"""What clients saw of a fault, beside the usage records and what Redis has counted."""

import itertools
import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tests.campaign.load import Load, Sent
from tests.campaign.site import LIMIT, Site

_UNSEEN_TOKENS = 8192
"""More than any request can have been held or charged at."""


Forgetful = Literal["redis", "replica"] | None


@dataclass(slots=True, kw_only=True)
class Run:
    """One fault under load: when it began and ended, and when every replica had noticed.

    `gone_s` is when the fault was there in full: it lies a little after `began_s`. `forgetful` is
    who lost then what it knew: Redis, a replica or nobody. Seconds since the epoch; infinity is
    what has not happened yet.
    """

    load: Load
    user: str
    forgetful: Forgetful = None
    began_s: float = math.inf
    gone_s: float = math.inf
    ended_s: float = math.inf
    whole_s: float = math.inf

    def of(self, tenant: str) -> list[Sent]:
        return self.load.where(lambda one: one.tenant == tenant)

    def inside(self, tenant: str) -> list[Sent]:
        """Sent and answered while the fault lasted."""
        return [
            one
            for one in self.of(tenant)
            if one.started_s >= self.gone_s and one.ended_s and one.ended_s < self.ended_s
        ]

    def admitted(self, tenant: str) -> int:
        """Requests of the whole run that were let in, as clients saw it."""
        return sum(one.status == 200 for one in self.of(tenant))

    def admitted_inside(self, tenant: str) -> int:
        """Those sent while the fault lasted whose answer began then, too."""
        return sum(
            one.status == 200 and (one.answered_s or 0) < self.ended_s
            for one in self.of(tenant)
            if one.started_s >= self.gone_s
        )

    def statuses(self, chosen: list[Sent]) -> Counter[int | None]:
        return Counter(one.status for one in chosen)

    def __str__(self) -> str:
        lasted_s, late_s = self.ended_s - self.began_s, self.whole_s - self.ended_s
        lines = [f"\n{self.user}: {lasted_s:.1f} s; in use again {late_s:.1f} s after its end"]
        for tenant in self.load.keys:
            inside, whole = self.admitted_inside(tenant), self.admitted(tenant)
            ratio = f" ({inside / LIMIT:.2f} and {whole / LIMIT:.2f} of the limit)"
            lines.append(
                f"  {tenant:6} let in {inside} while it lasted, {whole} in all"
                f"{ratio if tenant in ('closed', 'share', 'open') else ''}:"
                f" {dict(self.statuses(self.inside(tenant)))},"
                f" in all {dict(self.statuses(self.of(tenant)))}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Span:
    """The least and the most that a counter may show."""

    least: int
    most: int

    def holds(self, count: int) -> bool:
        return self.least <= count <= self.most


def charged(run: Run, tenant: str, records: dict[str, int]) -> tuple[Span, Span]:
    """Requests and tokens that Redis must have counted for the tenant's requests of a run.

    `records` holds the tokens charged by request id.
    """
    requests = [0, 0]
    tokens = [0, 0]
    for one in run.of(tenant):
        least, most = _counts(one, run)
        known = records.get(one.request_id, one.tokens)
        requests[0] += least
        requests[1] += most
        tokens[0] += least * (known or 0)
        tokens[1] += most * (_UNSEEN_TOKENS if known is None else known)
    return Span(*requests), Span(*tokens)


def _counts(one: Sent, run: Run) -> tuple[int, int]:
    """How often the request is counted, at least and at most: a client cannot know everything.

    Answers of an `open` limit are not counted while Redis is away. What a replica let in by its
    share, when an answer of Redis was late, it tells a Redis that lost its data, too; and
    takes with it when it dies.
    """
    if one.status not in (200, None):
        return 0, 0
    if one.status is None or one.tenant == "open":
        return 0, 1
    if run.forgetful is None or one.started_s >= run.gone_s:
        return 1, 1
    if one.tenant != "closed":
        return 0, 1
    if run.forgetful == "replica":
        return 1, 1
    return 0, int((one.answered_s or 0) >= run.began_s)


def records_of(site: Site) -> list[dict[str, Any]]:
    """The usage records so far. No reservation is there twice."""
    records = [json.loads(line) for line in site.fleet.records().splitlines() if _is_whole(line)]
    reservations = [one["reservation"] for one in records if one["reservation"]]
    assert len(reservations) == len(set(reservations))
    return records


def most_in_flight(site: Site, tenant: str, user: str) -> int:
    """The most answers of a user that ran at one instant, by the proxy's clock.

    From its first output to its end an answer holds its slot, whoever reads it how late.
    """
    steps = []
    for one in records_of(site):
        if (one["tenant"], one["user"]) == (tenant, user) and one["ttft_s"] is not None:
            start_s = datetime.fromisoformat(one["time"]).timestamp()
            steps += [(start_s + one["ttft_s"], 1), (start_s + one["duration_s"], -1)]
    running = itertools.accumulate(step for _, step in sorted(steps))
    return max(running, default=0)


def _is_whole(line: str) -> bool:
    """A replica that is killed may leave half a line."""
    return line.startswith("{") and line.endswith("}")


def differences(site: Site, run: Run) -> list[str]:
    """Counters in Redis that are not what was charged; empty when all of them agree."""
    records = {
        one["request_id"]: (one["prompt_tokens"] or 0) + (one["completion_tokens"] or 0)
        for one in records_of(site)
    }
    found = []
    for tenant in run.load.keys:
        spans = dict(zip(("requests", "tokens"), charged(run, tenant, records), strict=True))
        if tenant == "slots":
            del spans["requests"]
        for count, span in spans.items():
            counted = site.counters(tenant, run.user, count)
            if any(one < 0 for one in counted) or not span.holds(sum(counted)):
                found.append(f"{tenant}: {counted} {count} in Redis, {span} were charged")
    return found
