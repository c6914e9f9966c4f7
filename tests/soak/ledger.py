"""Usage records, clients, upstreams and Redis: four accounts of the same requests, compared."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.kinds import STEADY, TORN, Caller
from tests.soak.load import Sent

BEFORE_KILL_S, AFTER_KILL_S = 3.0, 3.0
"""A request that ended so near to a replica's death may have lost its record or settlement."""
_BEFORE_LIMITS = {400, 401, 404}
"""Who is refused with these never comes to the limits."""
_MOST_TOKENS = 8192
_UNAVAILABLE_PART = 0.001
"""The most of all requests that may get 503 with no replica dying: a busy machine is slow."""
_NOT_TOKENS = 2
"""Events of a stream that carry no token: the first (role) and the last (usage)."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a soak compares of a usage record."""

    caller: Caller
    model: str | None
    status: int | None
    source: str | None
    prompt: int
    completion: int
    choices: int
    held: int = 0
    """The estimate."""
    details: str = ""

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    @property
    def is_charged(self) -> bool:
        return self.source not in (None, "refund")


@dataclass
class Records:
    """The records by request id; `twice` are ids that have more than one, `torn` half lines."""

    by_id: dict[str, Record] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    torn: int = 0

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "Records":
        """All but those that watch the proxy itself, which ask for its models."""
        records = cls()
        for path in paths:
            with path.open() as file:
                for line in file:
                    records._add(line)
        return records

    def _add(self, line: str) -> None:
        try:
            one = json.loads(line)
        except ValueError:
            self.torn += 1
            return
        if one["path"] == "/v1/models":
            return
        if one["request_id"] in self.by_id:
            self.twice.append(one["request_id"])
        self.by_id[one["request_id"]] = Record(
            Caller(one["tenant"] or "", one["user"] or ""),
            one["model"],
            one["status"],
            one["source"],
            one["prompt_tokens"] or 0,
            one["completion_tokens"] or 0,
            one["choices"] or 1,
            one["estimated_tokens"] or 0,
            f"{','.join(one['flags'])} {one['details']}",
        )


@dataclass
class Finding:
    """One rule of the soak, whether it held, and the figures that say so."""

    rule: str
    holds: bool
    figures: str


@dataclass
class Account:
    """What clients saw, beside the records. `kills` are spans in which a replica was away."""

    sent: list[Sent]
    records: Records
    kills: list[tuple[float, float]]

    def __post_init__(self) -> None:
        answered = [one for one in self.sent if one.request_id]
        self.answered = answered
        self.missing = [one for one in answered if one.request_id not in self.records.by_id]
        self.strangers = len(self.records.by_id.keys() - {one.request_id for one in answered})
        """Records of requests whose client left before it was told their id."""

    def near_kill(self, one: Sent) -> bool:
        """Whether a replica died, or was away, while the request ran or ended."""
        return any(
            one.started_s < back_s + AFTER_KILL_S and one.ended_s > died_s - BEFORE_KILL_S
            for died_s, back_s in self.kills
        )

    def findings(self) -> Iterator[Finding]:
        yield self._one_record_each()
        yield self._ends_as_planned()
        yield self._unavailable()
        yield self._charged_as_seen()

    def _one_record_each(self) -> Finding:
        unseen = sum(not one.request_id for one in self.sent)
        unexplained = sum(not self.near_kill(one) for one in self.missing)
        lost_unseen = unseen - self.strangers
        return Finding(
            "one usage record for each request",
            not unexplained and not self.records.twice and 0 <= lost_unseen <= len(self._unseen()),
            f"{len(self.sent):,} requests, {len(self.records.by_id):,} records,"
            f" {len(self.missing) + lost_unseen} lost with killed replicas,"
            f" {unexplained} otherwise, {len(self.records.twice)} twice",
        )

    def _ends_as_planned(self) -> Finding:
        odd = Counter(_oddity(one) for one in self.sent)
        fine = odd.pop("", 0)
        return Finding(
            "every request ends, as it should",
            not odd,
            f"{fine:,} did" + "".join(f"; {count} {what}" for what, count in odd.most_common(8)),
        )

    def _unavailable(self) -> Finding:
        """A hook that is slower than 2 s is 503, as docs/failure-modes.md says."""
        refused = [one for one in self.sent if one.status == 503]
        slow = [one for one in refused if not self.near_kill(one)]
        why = Counter(
            record.details
            for one in refused
            if (record := self.records.by_id.get(one.request_id)) is not None
        )
        return Finding(
            f"at most {_UNAVAILABLE_PART:.1%} get 503 while no replica dies",
            len(slow) <= _UNAVAILABLE_PART * len(self.sent),
            f"{len(refused) - len(slow)} around kills, {len(slow)} otherwise"
            + "".join(f"; {count} x {what}" for what, count in why.most_common(4)),
        )

    def _charged_as_seen(self) -> Finding:
        wrong = []
        compared = 0
        for one in self.answered:
            record = self.records.by_id.get(one.request_id)
            if record is None:
                continue
            compared += 1
            if not _agrees(one, record):
                wrong.append(f"{one.kind.name} ({one.events} events, {one.tokens}): {record}")
        return Finding(
            "each record is what the client saw",
            not wrong,
            f"{compared:,} compared, {len(wrong)} differ" + "".join(f"; {w}" for w in wrong[:3]),
        )

    def steady(self, counted: dict[str, int]) -> Finding:
        """Complete answers: the records, and lost ones by their kind, are the upstream's count."""
        tokens = Counter[str]()
        kinds = self._by_kind()
        lost = [one for one in self.missing if _is_admitted(one, STEADY)]
        made_up = [kinds[one.kind.name] for one in lost if one.kind.name in kinds]
        for record in [*self.records.by_id.values(), *made_up]:
            if record.model == STEADY and record.is_charged:
                # vLLM's counter has the prompt once for each choice, its usage has it once.
                tokens["prompt"] += record.prompt * record.choices
                tokens["generation"] += record.completion
        return Finding(
            "records of complete answers = the upstream's count",
            dict(tokens) == {kind: count for kind, count in counted.items() if count},
            f"prompt {tokens['prompt']:,} and {counted['prompt']:,}, completion"
            f" {tokens['generation']:,} and {counted['generation']:,}, with {len(lost)} lost"
            " records made up for by their kind",
        )

    def torn(self, counted: dict[str, int]) -> Finding:
        """Answers that broke off: charged is at most what was generated, at least what came."""
        charged = sum(one.completion for one in self.records.by_id.values() if one.model == TORN)
        seen = sum(
            max(0, one.events - _NOT_TOKENS)
            for one in self.answered
            if one.request_id in self.records.by_id and one.kind.body.get("model") == TORN
        )
        return Finding(
            "records of broken answers: what came, at most what was generated",
            seen <= charged <= counted["generation"],
            f"{seen:,} tokens seen, {charged:,} charged, {counted['generation']:,} generated",
        )

    def spans(self) -> dict[tuple[Caller, str], tuple[int, int]]:
        """The least and the most that Redis may have counted, by caller and what is counted."""
        least = defaultdict[tuple[Caller, str], int](int)
        more = defaultdict[tuple[Caller, str], int](int)
        kinds = self._by_kind()
        for record in self.records.by_id.values():
            if record.is_charged:
                least[record.caller, "requests"] += 1
                least[record.caller, "tokens"] += record.tokens
        unseen = self._unseen()
        for one in self.missing + unseen:
            if one.request_id and not _is_admitted(one, None) and one.status != 503:
                continue
            like = kinds.get(one.kind.name)
            most = _MOST_TOKENS if like is None else max(like.held, like.tokens)
            if one.status != 200:
                more[one.caller, "requests"] += 1
                more[one.caller, "tokens"] += most
                continue
            known = like.tokens if like is not None and one.kind.ending == "complete" else 0
            least[one.caller, "requests"] += 1
            least[one.caller, "tokens"] += known
            more[one.caller, "tokens"] += most - known
        keys = least.keys() | more.keys()
        return {key: (least[key], least[key] + more[key]) for key in keys}

    def _unseen(self) -> list[Sent]:
        """Requests without an answer whose record may be lost: none where all have theirs."""
        unseen = [one for one in self.sent if not one.request_id]
        if len(unseen) == self.strangers:
            return []
        return [one for one in unseen if self.near_kill(one)]

    def _by_kind(self) -> dict[str, Record]:
        """A record of each kind; of answers that end well all are alike but for the estimate."""
        kinds: dict[str, Record] = {}
        for one in self.answered:
            record = self.records.by_id.get(one.request_id)
            if record is None:
                continue
            known = kinds.get(one.kind.name)
            if known is None or (record.is_charged, record.held) > (known.is_charged, known.held):
                kinds[one.kind.name] = record
        return kinds


def _oddity(one: Sent) -> str:
    """What should not have happened to a request; "" for nothing."""
    if one.failure == "stuck":
        return f"{one.kind.name} stuck"
    if one.status is None:
        return f"{one.kind.name}: {one.failure}" if one.failure else ""
    if one.status == 503 or (one.status == 429 and not one.kind.statuses & _BEFORE_LIMITS):
        return ""
    if one.status not in one.kind.statuses:
        return f"{one.kind.name}: {one.status}"
    if one.kind.ending in ("complete", "refused") and not one.whole:
        return f"{one.kind.name} broke off: {one.failure}"
    return ""


def _agrees(one: Sent, record: Record) -> bool:
    if one.status != record.status:
        return False
    if one.status != 200:
        return record.tokens == 0
    if one.kind.ending == "complete":
        known = one.tokens is None or one.tokens == record.tokens
        return record.source == "usage" and known
    return max(0, one.events - _NOT_TOKENS) <= record.completion <= one.kind.most_tokens


def _is_admitted(one: Sent, model: str | None) -> bool:
    return one.status == 200 and (model is None or one.kind.body.get("model") == model)
