"""Sends notices over HTTP: signed to a webhook, or as a message to Slack."""

import base64
import binascii
import hmac
import json
from hashlib import sha256
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx

from headgate.core.notices import Slack, Webhook
from headgate.ledger.notices.text import payload_of, subject_of, text_of
from headgate.ledger.notices.values import Notice

TIMEOUT_S = 10.0
_SECRET_PREFIX = "whsec_"  # noqa: S105 - the beginning of a secret, of Standard Webhooks
_LEAST_SECRET, _MOST_SECRET = 24, 64


class SendError(Exception):
    """A notice that its receiver has not taken. Its text says why, and holds no secret."""


async def post_signed(
    client: httpx.AsyncClient, hook: Webhook, notice: Notice, zone: ZoneInfo, now_s: float
) -> None:
    """Sends to a webhook, signed as Standard Webhooks says; raises SendError.

    The signature is of id, time and body, so that a receiver can refuse old and changed ones.
    """
    body = json.dumps(payload_of(notice, zone)).encode()
    stamp = f"{int(now_s)}"
    headers = {
        "content-type": "application/json",
        "webhook-id": notice.id,
        "webhook-timestamp": stamp,
        "webhook-signature": signature(_secret(hook.secret_file), notice.id, stamp, body),
    }
    await _post(client, hook.url, body, headers)


async def post_slack(
    client: httpx.AsyncClient, slack: Slack, notice: Notice, zone: ZoneInfo
) -> None:
    """Sends to an incoming webhook of Slack; raises SendError."""
    url = _read(slack.url_file)
    if not url.startswith(("https://", "http://")):
        raise SendError(f"{slack.url_file} holds no URL")
    text = f"*{_escaped(subject_of(notice))}*\n{_escaped(text_of(notice, zone))}"
    await _post(client, url, json.dumps({"text": text}).encode(), {})


def signature(secret: bytes, id: str, stamp: str, body: bytes) -> str:
    """The header `webhook-signature` (Standard Webhooks 1.0.0): HMAC-SHA256 in base64."""
    digest = hmac.digest(secret, f"{id}.{stamp}.".encode() + body, sha256)
    return "v1," + base64.b64encode(digest).decode()


async def _post(client: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str]) -> None:
    """Every 2xx has taken it. The URL may be a secret, so no error repeats it."""
    headers = {"content-type": "application/json", **headers}
    try:
        answer = await client.post(url, content=body, headers=headers, timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise SendError(f"the receiver cannot be reached ({type(error).__name__})") from None
    if not answer.is_success:
        raise SendError(f"the receiver answers {answer.status_code}")


def _secret(path: str) -> bytes:
    text = _read(path)
    try:
        secret = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(_SECRET_PREFIX) or not _LEAST_SECRET <= len(secret) <= _MOST_SECRET:
        raise SendError(
            f"{path} holds no secret: {_SECRET_PREFIX} and {_LEAST_SECRET} to {_MOST_SECRET}"
            " bytes in base64"
        )
    return secret


def _read(path: str) -> str:
    """Read anew for each notice, so that a new secret counts at once."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SendError(f"{path} cannot be read") from None


def _escaped(text: str) -> str:
    """The three characters that Slack reads as its own signs."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
