"""Sends notices by mail. The standard library's client waits in a thread of its own."""

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path
from zoneinfo import ZoneInfo

from headgate.core.notices import Mail, MailTls
from headgate.ledger.notices.posting import TIMEOUT_S, SendError
from headgate.ledger.notices.text import subject_of, text_of
from headgate.ledger.notices.values import Notice


async def send_mail(mail: Mail, to: Sequence[str], notice: Notice, zone: ZoneInfo) -> None:
    """Hands one message for all addresses to the mail server; raises SendError."""
    message = message_of(mail, to, notice, zone)
    try:
        await asyncio.to_thread(_hand_over, mail, message)
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        raise SendError(f"{mail.host}:{mail.port} did not take it: {_reason(error)}") from None


def message_of(mail: Mail, to: Sequence[str], notice: Notice, zone: ZoneInfo) -> EmailMessage:
    """The message. Its Message-ID is that of the notice, so that a second one can be told."""
    message = EmailMessage()
    message["From"] = mail.sender
    message["To"] = ", ".join(to)
    message["Subject"] = subject_of(notice)
    message["Date"] = notice.decided_at
    message["Message-ID"] = f"<{notice.id}@{mail.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday answers it
    message.set_content(text_of(notice, zone))
    return message


def _hand_over(mail: Mail, message: EmailMessage) -> None:
    with _connected(mail) as client:
        if mail.tls is MailTls.STARTTLS:
            client.starttls(context=ssl.create_default_context())
        if mail.user is not None and mail.password_file is not None:
            client.login(mail.user, _password(mail.password_file))
        refused = client.send_message(message)
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)


def _connected(mail: Mail) -> smtplib.SMTP:
    if mail.tls is MailTls.TLS:
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_S, context=context)
    return smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_S)


def _password(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise OSError(f"{path} cannot be read") from None


def _reason(error: Exception) -> str:
    """The kind of the error, with the server's code if it has answered one."""
    code = getattr(error, "smtp_code", None)
    if isinstance(error, smtplib.SMTPException | ssl.SSLError | TimeoutError):
        return type(error).__name__ if code is None else f"{type(error).__name__} {code}"
    return str(error) or type(error).__name__
