"""Compares the ledger with vLLM's own counters, pod by pod."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from headgate.database.connection import Connection
from headgate.ledger.engine_counters import EngineTokens

BOUND_PERCENT = 1.0
"""How much of a pod's tokens may be unexplained, unless the command says otherwise."""
_LEDGER = """
select coalesce(pod, ''), count(*),
  coalesce(sum(prompt_tokens * coalesce(choices, 1)), 0)::bigint,
  coalesce(sum(completion_tokens), 0)::bigint,
  coalesce(sum(estimated_tokens + estimated_prompt_tokens * (coalesce(choices, 1) - 1))
    filter (where source is distinct from 'usage'), 0)::bigint
  + coalesce(sum(greatest(estimated_tokens - prompt_tokens - completion_tokens, 0))
    filter (where source = 'usage' and ended is distinct from 'complete'), 0)::bigint
from headgate.usage_record where ended_at >= %s and ended_at < %s and pod is not null group by 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTokens:
    """The tokens of a pod's requests in the ledger. A prompt counts once for each choice.

    `unsure` bounds the tokens of requests without usage: aborted, broken and refunded ones. vLLM
    worked on them, and nobody was told how much. For answers that ended early with usage it bounds
    the tokens after their last event.
    """

    requests: int = 0
    prompt: int = 0
    completion: int = 0
    unsure: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A pod's line of the statement: both accounts, in tokens."""

    pod: str
    engine: EngineTokens
    ledger: LedgerTokens

    @property
    def engine_tokens(self) -> int:
        """The tokens by vLLM."""
        return self.engine.prompt + self.engine.completion

    @property
    def difference(self) -> int:
        """The tokens by vLLM that the ledger lacks; below 0 the ledger has more."""
        return self.engine_tokens - self.ledger.prompt - self.ledger.completion

    @property
    def explained(self) -> int:
        """The part of the difference that requests without usage may be."""
        return min(abs(self.difference), self.ledger.unsure)

    @property
    def unexplained(self) -> int:
        """The rest: traffic past the gateway, lost records, or a wrong bill."""
        return abs(self.difference) - self.explained

    def is_within(self, bound_percent: float) -> bool:
        """Whether no more of the engine's tokens than this is unexplained."""
        return self.unexplained * 100 <= bound_percent * max(self.engine_tokens, 1)


def exposition_of(lines: Sequence[Compared], now_s: float) -> str:
    """The statement as metrics, for the textfile collector of Prometheus' node exporter. Pure."""
    registry = CollectorRegistry()
    names = "pod", "model"
    engine = Gauge(
        "headgate_reconciled_tokens", "Tokens by vLLM in the range.", names, registry=registry
    )
    unexplained = Gauge(
        "headgate_unexplained_tokens",
        "Tokens of vLLM that the ledger lacks, or has too many of, without a known cause.",
        names,
        registry=registry,
    )
    at = Gauge(
        "headgate_reconciled_timestamp_seconds",
        "When the accounts were compared, in seconds since the Unix epoch.",
        registry=registry,
    )
    at.set(now_s)
    for one in lines:
        engine.labels(one.pod, one.engine.model).set(one.engine_tokens)
        unexplained.labels(one.pod, one.engine.model).set(one.unexplained)
    return generate_latest(registry).decode()


async def read_ledger(
    connection: Connection, begin: datetime, end: datetime
) -> Mapping[str, LedgerTokens]:
    """The tokens by pod of the requests that ended from `begin` until before `end`."""
    rows = await (await connection.execute(_LEDGER, (begin, end))).fetchall()
    return {
        pod: LedgerTokens(requests=count, prompt=prompt, completion=completion, unsure=unsure)
        for pod, count, prompt, completion, unsure in rows
    }


def compare(
    engines: Mapping[str, EngineTokens], ledger: Mapping[str, LedgerTokens]
) -> Sequence[Compared]:
    """A line for each pod that either of them knows. Pure."""
    return [
        Compared(
            pod=pod,
            engine=engines.get(pod, EngineTokens(model="")),
            ledger=ledger.get(pod, LedgerTokens()),
        )
        for pod in sorted(engines.keys() | ledger.keys())
    ]
