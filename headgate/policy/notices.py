"""Notices as the policy file writes them: thresholds at a limit, channels, addresses."""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from headgate.core.notices import (
    FORECAST,
    Channels,
    Mail,
    MailTls,
    Slack,
    TenantNotices,
    Threshold,
    Webhook,
)
from headgate.policy.fields import Entry, distinct, invalid
from headgate.policy.problems import PolicyRule, shown

NOTIFY_RULE = (
    "a list of whole numbers of percent from 1 to 100 and, at a limit per hour or longer that is"
    " not smooth, the word forecast"
)
CHANNELS_RULE = "a mapping with any of the keys webhook, slack, mail"
TENANT_RULE = "a mapping with the keys to and digest"
_ADDRESS_RULE = "an address of mail, such as lead@example.org"
_SERVER_RULE = "HOST:PORT of a mail server, such as smtp.example.org:587"
_URL_RULE = "http:// or https:// with a host, without a name, a password or a fragment"
_FILE_RULE = "the absolute path of a file"
_MAX_URL, _MAX_ADDRESS, _MAX_PORT = 2048, 254, 65_535
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_SERVER = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5})")


def _thresholds(value: object) -> object:
    """As text, so that percents and the word are of one kind."""
    if not isinstance(value, list):
        return value
    for one in value:
        if not (one == FORECAST or (type(one) is int and 1 <= one <= 100)):
            raise invalid(PolicyRule.NOT_ONE_OF, f"lists no threshold (value {shown(one)})")
    return [f"{one}" for one in value]


def _address(text: str) -> str:
    if len(text) > _MAX_ADDRESS or not _ADDRESS.fullmatch(text):
        raise invalid(PolicyRule.BAD_NAME, f"is no address of mail (value {shown(text)})")
    return text


def _server(text: str) -> str:
    found = _SERVER.fullmatch(text)
    if found is None or not 0 < int(found[2]) <= _MAX_PORT:
        raise invalid(PolicyRule.BAD_NAME, f"is no mail server (value {shown(text)})")
    return text


def _url(text: str) -> str:
    """Its query may be a secret, so no value is shown."""
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in text or "#" in text or len(text) > _MAX_URL or not text.isprintable():
        raise invalid(PolicyRule.BAD_URL, "is not the URL of a receiver (value not shown)")
    return text


def _file(path: str) -> str:
    if not Path(path).is_absolute():
        raise invalid(PolicyRule.BAD_PATH, f"is not an absolute path (value {shown(path)})")
    return path


def _check_password(path: str | None, mail: ValidationInfo) -> str | None:
    if path is not None and mail.data.get("tls") == "none":
        raise invalid(PolicyRule.CLEAR_PASSWORD, "cannot be combined with tls: none")
    if path is not None and mail.data.get("user", "") is None:
        raise invalid(PolicyRule.MISPLACED_KEY, "does not belong here")
    return path


Thresholds: TypeAlias = Annotated[
    list[Threshold],
    BeforeValidator(_thresholds),
    Field(min_length=1, description=NOTIFY_RULE),
    AfterValidator(distinct),
]
Address = Annotated[str, Field(description=_ADDRESS_RULE), AfterValidator(_address)]
File = Annotated[str, Field(description=_FILE_RULE), AfterValidator(_file)]


class WebhookEntry(Entry):
    """A program that takes signed notices."""

    url: Annotated[str, AfterValidator(_url)] = Field(description=_URL_RULE)
    secret_file: File


class SlackEntry(Entry):
    """An incoming webhook of Slack."""

    url_file: File


class MailEntry(Entry):
    """The mail server that sends notices."""

    server: Annotated[str, AfterValidator(_server)] = Field(description=_SERVER_RULE)
    sender: Address
    tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="starttls, tls or none"
    )
    user: str | None = Field(
        default=None, min_length=1, max_length=256, description="the name of a login"
    )
    password_file: Annotated[File | None, AfterValidator(_check_password)] = Field(
        default=None, description=f"{_FILE_RULE}, for a user and over TLS"
    )


class NoticesEntry(Entry):
    """The channels of all notices."""

    webhook: WebhookEntry | None = Field(
        default=None, description="a mapping with the keys url and secret_file"
    )
    slack: SlackEntry | None = Field(default=None, description="a mapping with the key url_file")
    mail: MailEntry | None = Field(
        default=None,
        description="a mapping with the keys server, sender, tls, user, password_file",
    )


class TenantNoticesEntry(Entry):
    """The people who hear of the limits of a tenant."""

    to: Annotated[list[Address], Field(min_length=1), AfterValidator(distinct)] = Field(
        description="a list of at least one address of mail"
    )
    digest: Literal["day", "week", "month"] | None = Field(
        default=None, description="day, week or month"
    )


NoticesOfTenant: TypeAlias = Annotated[TenantNoticesEntry | None, Field(description=TENANT_RULE)]


def channels_of(entry: NoticesEntry) -> Channels:
    """The channels that the file names."""
    hook, slack, mail = entry.webhook, entry.slack, entry.mail
    return Channels(
        webhook=None if hook is None else Webhook(hook.url, hook.secret_file),
        slack=None if slack is None else Slack(slack.url_file),
        mail=None if mail is None else _mail(mail),
    )


def _mail(entry: MailEntry) -> Mail:
    host, _, port = entry.server.rpartition(":")
    return Mail(
        host=host,
        port=int(port),
        sender=entry.sender,
        tls=MailTls(entry.tls),
        user=entry.user,
        password_file=entry.password_file,
    )


def tenant_notices_of(entry: TenantNoticesEntry | None) -> TenantNotices:
    """The addresses of a tenant."""
    return TenantNotices() if entry is None else TenantNotices(tuple(entry.to), entry.digest)
