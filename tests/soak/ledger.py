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
    """The part of a usage record that a soak compares."""

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
            entry = json.loads(line)
        except ValueError:
            self.torn += 1
            return
        if entry["path"] == "/v1/models":
            return
        if entry["request_id"] in self.by_id:
            self.twice.append(entry["request_id"])
        self.by_id[entry["request_id"]] = Record(
            Caller(entry["tenant"] or "", entry["user"] or ""),
            entry["model"],
            entry["status"],
            entry["source"],
            entry["prompt_tokens"] or 0,
            entry["completion_tokens"] or 0,
            entry["choices"] or 1,
            entry["estimated_tokens"] or 0,
            f"{','.join(entry['flags'])} {entry['details']}",
        )


@dataclass
class Finding:
    """One rule of the soak, whether it held, and the figures that say so."""

    rule: str
    holds: bool
    figures: str


@dataclass
class Account:
    """The requests of clients beside their records. A replica was away in the spans `kills`."""

    sent: list[Sent]
    records: Records
    kills: list[tuple[float, float]]

    def __post_init__(self) -> None:
        answered = [sent for sent in self.sent if sent.request_id]
        self.answered = answered
        self.missing = [sent for sent in answered if sent.request_id not in self.records.by_id]
        self.strangers = len(self.records.by_id.keys() - {sent.request_id for sent in answered})
        """Records of requests whose client left before it was told their id."""

    def near_kill(self, sent: Sent) -> bool:
        """Whether a replica died, or was away, while the request ran or ended."""
        return any(
            sent.started_s < back_s + AFTER_KILL_S and sent.ended_s > died_s - BEFORE_KILL_S
            for died_s, back_s in self.kills
        )

    def findings(self) -> Iterator[Finding]:
        yield self._one_record_each()
        yield self._ends_as_planned()
        yield self._unavailable()
        yield self._charged_as_seen()

    def _one_record_each(self) -> Finding:
        unseen = sum(not sent.request_id for sent in self.sent)
        unexplained = sum(not self.near_kill(sent) for sent in self.missing)
        lost_unseen = unseen - self.strangers
        return Finding(
            "one usage record for each request",
            not unexplained and not self.records.twice and 0 <= lost_unseen <= len(self._unseen()),
            f"{len(self.sent):,} requests, {len(self.records.by_id):,} records,"
            f" {len(self.missing) + lost_unseen} lost with killed replicas,"
            f" {unexplained} otherwise, {len(self.records.twice)} twice",
        )

    def _ends_as_planned(self) -> Finding:
        odd = Counter(_oddity(sent) for sent in self.sent)
        fine = odd.pop("", 0)
        return Finding(
            "every request ends, as it should",
            not odd,
            f"{fine:,} did" + "".join(f"; {count} {kind}" for kind, count in odd.most_common(8)),
        )

    def _unavailable(self) -> Finding:
        """A hook that is slower than 2 s is 503, as docs/failure-modes.md says."""
        refused = [sent for sent in self.sent if sent.status == 503]
        slow = [sent for sent in refused if not self.near_kill(sent)]
        why = Counter(
            record.details
            for sent in refused
            if (record := self.records.by_id.get(sent.request_id)) is not None
        )
        return Finding(
            f"at most {_UNAVAILABLE_PART:.1%} get 503 while no replica dies",
            len(slow) <= _UNAVAILABLE_PART * len(self.sent),
            f"{len(refused) - len(slow)} around kills, {len(slow)} otherwise"
            + "".join(f"; {count} x {kind}" for kind, count in why.most_common(4)),
        )

    def _charged_as_seen(self) -> Finding:
        wrong = []
        compared = 0
        for sent in self.answered:
            record = self.records.by_id.get(sent.request_id)
            if record is None:
                continue
            compared += 1
            if not _agrees(sent, record):
                wrong.append(f"{sent.kind.name} ({sent.events} events, {sent.tokens}): {record}")
        return Finding(
            "each record is what the client saw",
            not wrong,
            f"{compared:,} compared, {len(wrong)} differ" + "".join(f"; {w}" for w in wrong[:3]),
        )

    def steady(self, counted: dict[str, int]) -> Finding:
        """Complete answers: the records, and lost ones by their kind, are the upstream's count."""
        tokens = Counter[str]()
        kinds = self._by_kind()
        lost = [sent for sent in self.missing if _is_admitted(sent, STEADY)]
        made_up = [kinds[sent.kind.name] for sent in lost if sent.kind.name in kinds]
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
        torn = (record for record in self.records.by_id.values() if record.model == TORN)
        charged = sum(record.completion for record in torn)
        seen = sum(
            max(0, sent.events - _NOT_TOKENS)
            for sent in self.answered
            if sent.request_id in self.records.by_id and sent.kind.body.get("model") == TORN
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
        kinds, held = self._by_kind(), self._least_held()
        for record in self.records.by_id.values():
            if record.is_charged:
                least[record.caller, "requests"] += 1
                least[record.caller, "tokens"] += record.tokens
        unseen = self._unseen()
        for sent in self.missing + unseen:
            if sent.request_id and not _is_admitted(sent, None) and sent.status != 503:
                continue
            like = kinds.get(sent.kind.name)
            most = _MOST_TOKENS if like is None else max(like.held, like.tokens)
            if sent.status != 200:
                more[sent.caller, "requests"] += 1
                more[sent.caller, "tokens"] += most
                continue
            known = like.tokens if like is not None and sent.kind.ending == "complete" else 0
            fewest = min(known, held.get(sent.kind.name, 0))
            least[sent.caller, "requests"] += 1
            least[sent.caller, "tokens"] += fewest
            more[sent.caller, "tokens"] += most - fewest
        keys = least.keys() | more.keys()
        return {key: (least[key], least[key] + more[key]) for key in keys}

    def _least_held(self) -> dict[str, int]:
        """By kind the smallest estimate: a request that nobody settles stays charged at its own."""
        held: dict[str, int] = {}
        for sent in self.answered:
            record = self.records.by_id.get(sent.request_id)
            if record is not None and record.is_charged:
                held[sent.kind.name] = min(record.held, held.get(sent.kind.name, record.held))
        return held

    def _unseen(self) -> list[Sent]:
        """Requests without an answer whose record may be lost: none where all have theirs."""
        unseen = [sent for sent in self.sent if not sent.request_id]
        if len(unseen) == self.strangers:
            return []
        return [sent for sent in unseen if self.near_kill(sent)]

    def _by_kind(self) -> dict[str, Record]:
        """A record of each kind; of answers that end well all are alike but for the estimate."""
        kinds: dict[str, Record] = {}
        for sent in self.answered:
            record = self.records.by_id.get(sent.request_id)
            if record is None:
                continue
            known = kinds.get(sent.kind.name)
            if known is None or (record.is_charged, record.held) > (known.is_charged, known.held):
                kinds[sent.kind.name] = record
        return kinds


def _oddity(sent: Sent) -> str:
    """The fault in a request's course; "" for none."""
    if sent.failure == "stuck":
        return f"{sent.kind.name} stuck"
    if sent.status is None:
        return f"{sent.kind.name}: {sent.failure}" if sent.failure else ""
    if sent.status == 503 or (sent.status == 429 and not sent.kind.statuses & _BEFORE_LIMITS):
        return ""
    if sent.status not in sent.kind.statuses:
        return f"{sent.kind.name}: {sent.status}"
    if sent.kind.ending in ("complete", "refused") and not sent.whole:
        return f"{sent.kind.name} broke off: {sent.failure}"
    return ""


def _agrees(sent: Sent, record: Record) -> bool:
    if sent.status != record.status:
        return False
    if sent.status != 200:
        return record.tokens == 0
    if sent.kind.ending == "complete":
        known = sent.tokens is None or sent.tokens == record.tokens
        return record.source == "usage" and known
    return max(0, sent.events - _NOT_TOKENS) <= record.completion <= sent.kind.most_tokens


def _is_admitted(sent: Sent, model: str | None) -> bool:
    return sent.status == 200 and (model is None or sent.kind.body.get("model") == model)
