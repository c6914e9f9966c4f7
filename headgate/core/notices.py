"""Where notices of limits go: the channels of the policy, and the addresses of a tenant. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

FORECAST = "forecast"
"""The threshold that is passed when the pace so far leads beyond the limit."""

Threshold: TypeAlias = str
"""A whole number of percent as text, or FORECAST."""


class MailTls(StrEnum):
    """How the connection to a mail server becomes a safe one."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of signed notices. `secret_file` holds its secret, as Standard Webhooks says."""

    url: str
    secret_file: str


@dataclass(frozen=True, slots=True)
class Slack:
    """An incoming webhook of Slack, or of a program that takes the same. Its URL is a secret."""

    url_file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail server (SMTP submission, RFC 6409), and the address from which it sends."""

    host: str
    port: int
    sender: str
    tls: MailTls = MailTls.STARTTLS
    user: str | None = None
    password_file: str | None = None


@dataclass(frozen=True, slots=True)
class Channels:
    """The ways on which notices go out; None for one that is not there."""

    webhook: Webhook | None = None
    slack: Slack | None = None
    mail: Mail | None = None


@dataclass(frozen=True, slots=True)
class TenantNotices:
    """The people who hear of a tenant by mail. `digest` is its period: day, week or month."""

    to: tuple[str, ...] = ()
    digest: str | None = None
