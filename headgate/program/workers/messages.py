"""The parent's questions to a worker. Each gets one answer, in the order of the questions."""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Metric

from headgate.core.policy import CompiledPolicy
from headgate.program.settings import LogLevel, ServiceSettings
from ratelimit.descriptors.tree import Domains


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The first message: everything that a worker needs. The answer is Ready or Failed.

    `settings` are the worker's own. Its `hooks` is where it listens, unless `takes_connections`
    says that the parent passes connections on. `domains` is empty without --ratelimit-config.
    `console` says whether a line for each request goes to standard output.
    """

    number: int
    settings: ServiceSettings
    policy: CompiledPolicy
    domains: Domains
    takes_connections: bool
    console: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker answers hooks."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot start; one line for the operator."""

    problem: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """The versions in force from now on. The answer is Ready."""

    policy: CompiledPolicy
    domains: Domains


@dataclass(frozen=True, slots=True)
class StopAdmitting:
    """New requests are refused from now on: one box ends. The answer is Ready."""


@dataclass(frozen=True, slots=True)
class LogFrom:
    """The least severe events of the log from now on. The answer is Ready."""

    level: LogLevel


@dataclass(frozen=True, slots=True)
class Count:
    """The answer is Numbers."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The metrics of a worker, and how many access log entries it has recorded and settled."""

    families: Sequence[Metric] = ()
    handled_entries: int = 0
