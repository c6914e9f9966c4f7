"""The requests of a fault as clients saw them, as usage records and as Redis counted them."""

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

    `gone_s` is when the fault was there in full, a little after `began_s`. `forgetful` names the
    part that lost its data: Redis, a replica or none. Times are seconds since the epoch, and
    infinity for what has not happened yet.
    """

    load: Load
    user: str
    forgetful: Forgetful = None
    began_s: float = math.inf
    gone_s: float = math.inf
    ended_s: float = math.inf
    whole_s: float = math.inf

    def of(self, tenant: str) -> list[Sent]:
        return self.load.where(lambda sent: sent.tenant == tenant)

    def inside(self, tenant: str) -> list[Sent]:
        """Sent and answered while the fault lasted."""
        return [
            sent
            for sent in self.of(tenant)
            if sent.started_s >= self.gone_s and sent.ended_s and sent.ended_s < self.ended_s
        ]

    def admitted(self, tenant: str) -> int:
        """Requests of the whole run that were let in, as clients saw it."""
        return sum(sent.status == 200 for sent in self.of(tenant))

    def admitted_inside(self, tenant: str) -> int:
        """Those sent while the fault lasted whose answer began then, too."""
        return sum(
            sent.status == 200 and (sent.answered_s or 0) < self.ended_s
            for sent in self.of(tenant)
            if sent.started_s >= self.gone_s
        )

    def statuses(self, chosen: list[Sent]) -> Counter[int | None]:
        return Counter(sent.status for sent in chosen)

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
    for sent in run.of(tenant):
        least, most = _counts(sent, run)
        known = records.get(sent.request_id, sent.tokens)
        requests[0] += least
        requests[1] += most
        tokens[0] += least * (known or 0)
        if known is None or _may_be_unsettled(sent, run):
            known = _UNSEEN_TOKENS
        tokens[1] += most * known
    return Span(*requests), Span(*tokens)


def _may_be_unsettled(sent: Sent, run: Run) -> bool:
    """Whether the request may stay charged at its estimate.

    A replica that dies forgets the log entries that it has received and not settled yet. On the
    lean path nothing else settles a request that holds no slot.
    """
    return run.forgetful == "replica" and sent.started_s < run.gone_s


def _counts(sent: Sent, run: Run) -> tuple[int, int]:
    """How often the request is counted, at least and at most: a client cannot know everything.

    Answers of an `open` limit are not counted while Redis is away. A replica may have admitted a
    request by its share, as an answer of Redis was late. It reports that even to a Redis that
    lost its data, and forgets it when it dies.
    """
    if sent.status not in (200, None):
        return 0, 0
    if sent.status is None or sent.tenant == "open":
        return 0, 1
    if run.forgetful is None or sent.started_s >= run.gone_s:
        return 1, 1
    if sent.tenant != "closed":
        return 0, 1
    if run.forgetful == "replica":
        return 1, 1
    return 0, int((sent.answered_s or 0) >= run.began_s)


def records_of(site: Site) -> list[dict[str, Any]]:
    """The usage records so far. No reservation is there twice."""
    records = [json.loads(line) for line in site.fleet.records().splitlines() if _is_whole(line)]
    reservations = [record["reservation"] for record in records if record["reservation"]]
    assert len(reservations) == len(set(reservations))
    return records


def most_in_flight(site: Site, tenant: str, user: str) -> int:
    """The most answers of a user that ran at one instant, by the proxy's clock.

    From its first output to its end an answer holds its slot, whoever reads it how late.
    """
    steps = []
    for record in records_of(site):
        if (record["tenant"], record["user"]) == (tenant, user) and record["ttft_s"] is not None:
            start_s = datetime.fromisoformat(record["time"]).timestamp()
            steps += [(start_s + record["ttft_s"], 1), (start_s + record["duration_s"], -1)]
    running = itertools.accumulate(step for _, step in sorted(steps))
    return max(running, default=0)


def _is_whole(line: str) -> bool:
    """A replica that is killed may leave half a line."""
    return line.startswith("{") and line.endswith("}")


def differences(site: Site, run: Run) -> list[str]:
    """Counters in Redis that are not what was charged; empty when all of them agree."""
    records = {
        record["request_id"]: (record["prompt_tokens"] or 0) + (record["completion_tokens"] or 0)
        for record in records_of(site)
    }
    found = []
    for tenant in run.load.keys:
        spans = dict(zip(("requests", "tokens"), charged(run, tenant, records), strict=True))
        if tenant == "slots":
            del spans["requests"]
        for count, span in spans.items():
            counted = site.counters(tenant, run.user, count)
            if min(counted, default=0) < 0 or not span.holds(sum(counted)):
                found.append(f"{tenant}: {counted} {count} in Redis, {span} were charged")
    return found
