"""How the answer to a request ended, and what the upstream said. Pure.

It is told from Envoy's own facts: its flags (`%RESPONSE_FLAGS%`), its details, and whether a byte
came from the upstream. So it holds for proxies with any configuration of ours.
"""

from accesslog.types import Ended, LogEntry
from headgate.core.answer_cache import HIT_DETAILS
from headgate.core.contract import AdmissionKey
from headgate.core.placement_metrics import AnsweredBy
from headgate.core.settlement import Usage

_CLIENT_LEFT = frozenset({"DC", "DR"})
_UPSTREAM_BROKE = frozenset(
    {"UH", "UF", "UC", "UR", "UT", "UO", "URX", "UPE", "UMSDR", "LH", "LR", "DF", "NC", "DT", "SI"}
)
_NO_ANSWER = "upstream_reset_before_response_started"
"""How Envoy's details begin if the last attempt got no answer. An earlier one may have had one."""

_REPLACED = "upstream_reset_after_response_started"
"""The details if an answer broke off. Envoy itself answers 502 if none of it had passed on."""
_BAD_GATEWAY = 502


def is_unanswered(entry: LogEntry) -> bool:
    """Whether a request ended after its check was asked, and before Envoy had the answer.

    Only the lean path reads the body before the check. If the client has left, or the services did
    not answer in time, there is nothing of ext_authz.
    """
    is_over = entry.duration_s is not None and not entry.upstream_host
    is_denied = entry.details == "ext_authz_denied"
    return is_over and not is_denied and bool(entry.request) and not entry.caller


def is_hit(entry: LogEntry) -> bool:
    """Whether the answer came from the answer cache."""
    return entry.details == HIT_DETAILS


def upstream_status(entry: LogEntry, usage: Usage) -> int | None:
    """The upstream's status; None if Envoy or Headgate answered in its place."""
    if entry.upstream_rx_s is None or entry.details.startswith(_NO_ANSWER):
        return None
    if entry.details.startswith(_REPLACED) and usage.status in (None, _BAD_GATEWAY):
        return None
    return entry.status if usage.status is None else usage.status


def ended_of(entry: LogEntry, usage: Usage, answered: int | None) -> Ended | None:
    """How the answer ended; None for a request that was refused before an upstream was asked.

    `answered` is its `upstream_status`.
    """
    flags = frozenset(entry.flags)
    if answered is not None:
        return _end_of_answer(flags, usage)
    if flags & _UPSTREAM_BROKE:
        return Ended.UPSTREAM_BROKE
    return Ended.CLIENT_LEFT if entry.status is None else None


def _end_of_answer(flags: frozenset[str], usage: Usage) -> Ended:
    """How an answer ended that had begun. Without metadata of the tap, only the flags tell."""
    if usage.complete and not usage.error:
        return Ended.COMPLETE
    if flags & _CLIENT_LEFT:
        return Ended.CLIENT_LEFT
    if flags & _UPSTREAM_BROKE or usage.status is not None:
        return Ended.UPSTREAM_BROKE
    return Ended.COMPLETE


def placed_at(entry: LogEntry) -> tuple[str, float] | None:
    """The pod that Headgate chose, and when the request began, in Unix time; None without one."""
    first = entry.admission.get(AdmissionKey.HOSTS, "").partition(",")[0]
    return (first, (entry.start_ns or 0) / 1e9) if first else None


def answered_by(entry: LogEntry) -> AnsweredBy:
    """The pod that was asked last, beside the list that Headgate gave the request."""
    hosts = entry.admission.get(AdmissionKey.HOSTS, "").split(",")
    if not entry.upstream_host:
        return AnsweredBy.NONE
    if entry.upstream_host == hosts[0]:
        return AnsweredBy.FIRST
    return AnsweredBy.LATER if entry.upstream_host in hosts else AnsweredBy.OTHER
