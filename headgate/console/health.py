"""The health of each part of the system, from the program's metrics and what was asked. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from headgate.console.words import count, span
from headgate.core.issuers import Issuer
from headgate.core.samples import Samples
from headgate.doctor.finding import Finding, State
from headgate.doctor.services import from_metrics

LATE_S = 60.0
"""From this lag on the ledger and the keys are late."""
_KIND = {State.OK: "ok", State.NOTE: "warn", State.PROBLEM: "bad"}
_RANK = ("bad", "warn", "ok", "off")


@dataclass(frozen=True, slots=True)
class Part:
    """A part: the shape of its state, a sentence, and facts by name."""

    name: str
    kind: str
    text: str
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Database:
    """The answer of PostgreSQL: its version, its size, and the time that it took."""

    version: str
    size_bytes: int
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that the page has looked at. `envoy` is None where none of ours runs.

    `database` is a text if PostgreSQL does not answer.
    """

    samples: Samples
    envoy: Samples | str | None
    database: Database | str
    issuers: Sequence[Issuer]
    now_s: float


def parts_of(seen: Seen) -> list[Part]:
    """All parts, in the order of a request's path."""
    found = [
        _envoy(seen),
        _services(seen.samples),
        _store(seen.samples),
        _database(seen),
        _ledger(seen.samples, seen.now_s),
        *(_issuer(seen, one) for one in seen.issuers),
        _certificate(seen),
        _policy(seen.samples, seen.now_s),
    ]
    findings = from_metrics(seen.samples, seen.now_s)
    return [_with_findings(part, findings) for part in found]


def worst(parts: Iterable[Part]) -> str:
    """The shape of the worst state."""
    return min((part.kind for part in parts), key=_RANK.index, default="ok")


def _with_findings(part: Part, findings: Sequence[Finding]) -> Part:
    """The part with what `headgate doctor` would say of it."""
    own = [one for one in findings if one.part == part.name.lower() and one.state is not State.OK]
    if not own:
        return part
    kind = min((part.kind, *(_KIND[one.state] for one in own)), key=_RANK.index)
    return Part(part.name, kind, "; ".join(one.text for one in own), part.facts)


def _envoy(seen: Seen) -> Part:
    streams = count(int(seen.samples.value("headgate_access_log_streams") or 0))
    facts = [("proxies that send access logs", streams)]
    if seen.envoy is None:
        return Part("Envoy", "off", "It runs elsewhere, in the mesh.", tuple(facts))
    if isinstance(seen.envoy, str):
        return Part("Envoy", "bad", seen.envoy, tuple(facts))
    active = seen.envoy.value("envoy_http_downstream_rq_active")
    uptime_s = seen.envoy.value("envoy_server_uptime")
    facts.insert(0, ("requests now", count(None if active is None else int(active))))
    facts.insert(0, ("up for", span(uptime_s)))
    return Part("Envoy", "ok", "It answers.", tuple(facts))


def _services(samples: Samples) -> Part:
    workers = int(samples.value("headgate_workers") or 0)
    ends = int(samples.value("headgate_worker_ends_total") or 0)
    decisions = samples.value("headgate_decisions_total") or 0.0
    facts = (
        ("processes", count(max(workers, 1))),
        ("worker ends", count(ends)),
        ("decisions since the start", count(int(decisions))),
    )
    text = f"{count(ends)} workers have ended and were started again." if ends else "They answer."
    return Part("Services", "warn" if ends else "ok", text, facts)


def _store(samples: Samples) -> Part:
    is_up = samples.value("headgate_store_available") != 0
    lost_s = samples.value("headgate_store_degraded_seconds_total") or 0.0
    errors = samples.value("headgate_store_errors_total") or 0.0
    facts = (("errors since the start", count(int(errors))), ("away since the start", span(lost_s)))
    text = "It answers." if is_up else "It does not answer."
    return Part("Store", "ok" if is_up else "bad", text, facts)


def _database(seen: Seen) -> Part:
    if isinstance(seen.database, str):
        return Part("PostgreSQL", "bad", seen.database)
    polled_s = seen.samples.value("headgate_keys_polled_timestamp_seconds") or 0.0
    age_s = seen.now_s - polled_s if polled_s > 1 else None
    is_late = age_s is not None and age_s > LATE_S
    facts = (
        ("answers in", f"{1000 * seen.database.took_s:.1f} ms"),
        ("version", seen.database.version),
        ("size", f"{seen.database.size_bytes / 10**6:,.1f} MB"),
        ("keys read", f"{span(age_s)} ago" if age_s is not None else "–"),
        ("keys in memory", count(int(seen.samples.value("headgate_keys") or 0))),
    )
    text = "The services do not read the keys: later changes wait." if is_late else "It answers."
    return Part("PostgreSQL", "warn" if is_late else "ok", text, facts)


def _ledger(samples: Samples, now_s: float) -> Part:
    current_s = samples.value("headgate_ledger_current_timestamp_seconds") or 0.0
    if not current_s:
        text = "There is none: start Headgate with --ledger-spool, and requests appear in it."
        return Part("Ledger", "off", text)
    lost = int(samples.value("headgate_ledger_lost_records_total") or 0)
    bad = int(samples.value("headgate_ledger_records_total", outcome="bad") or 0)
    lag_s = None if current_s <= 1 else max(0.0, now_s - current_s)
    facts = (
        ("behind by", span(lag_s)),
        ("spool", f"{(samples.value('headgate_ledger_spool_bytes') or 0) / 10**6:,.1f} MB"),
        ("added", count(int(samples.value("headgate_ledger_records_total", outcome="added") or 0))),
        ("lost", count(lost)),
        ("bad lines", count(bad)),
    )
    problem = _ledger_problem(lag_s, lost, bad)
    return Part("Ledger", problem[0], problem[1], facts)


def _ledger_problem(lag_s: float | None, lost: int, bad: int) -> tuple[str, str]:
    if lost:
        return "bad", f"{count(lost)} records were lost: the spool or its disk was full."
    if lag_s is None or lag_s > LATE_S:
        return "warn", "It is late: the newest requests are not in it yet."
    if bad:
        return "warn", f"{count(bad)} lines of the spool are no records; the log names them."
    return "ok", "It has every record of the spool."


def _issuer(seen: Seen, issuer: Issuer) -> Part:
    name = f"Issuer {issuer.alias}"
    gauge = "headgate_issuer_keys_loaded_timestamp_seconds"
    loaded_s = seen.samples.value(gauge, issuer=issuer.alias)
    if not loaded_s:
        return Part(name, "bad", f"Its keys were never fetched from {issuer.url}.")
    age_s = seen.now_s - loaded_s
    is_late = age_s > issuer.stale_for_s
    text = "Its keys are too old, so its tokens get 503." if is_late else "Its keys are known."
    return Part(name, "bad" if is_late else "ok", text, (("keys fetched", f"{span(age_s)} ago"),))


def _certificate(seen: Seen) -> Part:
    ends_s = seen.samples.value("headgate_certificate_expires_timestamp_seconds")
    if not ends_s:
        return Part("Certificate", "off", "This program shows none to clients.")
    ends_at = f"{datetime.fromtimestamp(ends_s, UTC):%-d %b %Y}"
    is_over = ends_s <= seen.now_s
    text = "It has ended." if is_over else "It is valid."
    return Part("Certificate", "bad" if is_over else "ok", text, (("ends", ends_at),))


def _policy(samples: Samples, now_s: float) -> Part:
    is_refused = bool(samples.value("headgate_policy_refused"))
    loaded_s = samples.value("headgate_policy_loaded_timestamp_seconds")
    facts = (("in force for", span(now_s - loaded_s if loaded_s else None)),)
    text = (
        "The file in place is refused, so an older one is in force: run headgate check."
        if is_refused
        else "The file in place is in force."
    )
    return Part("Policy", "bad" if is_refused else "ok", text, facts)


def loops(samples: Samples) -> Iterator[tuple[str, int, float | None]]:
    """The answers of each hook since the start, and their mean time in seconds."""
    by_hook: Mapping[str, float] = {
        labels["hook"]: value for labels, value in samples.of("headgate_hook_seconds_count")
    }
    for hook in sorted(by_hook):
        number = int(samples.value("headgate_hook_seconds_count", hook=hook) or 0)
        whole_s = samples.value("headgate_hook_seconds_sum", hook=hook) or 0.0
        yield hook, number, whole_s / number if number else None
