"""Notices reach their receivers at least once, signed, with one id. No secret is in a log."""

import json
import logging
import ssl
from email import message_from_string
from email.policy import default
from pathlib import Path

import pytest

from headgate.core.policy import CompiledPolicy
from headgate.ledger.notices.posting import signature
from tests.certificates import AUTHORITY, FOLDER
from tests.ledger.builders import rows
from tests.ledger.notices.builders import NOW_S, SECRET, Site, hook_channel, policy_of
from tests.ledger.notices.receivers import Hook, hook_receiver, mail_server
from tests.postgres_server import PostgresServer

MONTH = "{count: tokens, limit: 1000, per: month, notify: [50, 80, 100]}"
DELIVERIES = "select channel, attempts, sent_at is not null from headgate.notice_delivery"


def webhook_site(postgres: PostgresServer, folder: Path, hook: Hook) -> Site:
    return Site(postgres, policy_of(MONTH, channels=hook_channel(folder, hook.url)))


async def test_a_webhook_gets_the_highest_threshold_signed(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        site = webhook_site(postgres, tmp_path, hook)
        await site.use(850)
        await site.keeper().turn()

    [(headers, body)] = hook.got
    told = json.loads(body)
    id, stamp = headers["webhook-id"], headers["webhook-timestamp"]
    assert (told["id"], told["type"], told["threshold_percent"]) == (id, "limit.threshold", 80)
    assert (told["used"], told["limit"]["limit"], told["user"]) == (850, 1000, None)
    assert (told["begins_at"], told["ends_at"]) == (
        "2026-10-01T00:00:00+00:00",
        "2026-11-01T00:00:00+00:00",
    )
    assert int(stamp) == NOW_S
    assert headers["webhook-signature"] == signature(SECRET, id, stamp, body)
    assert site.metric("notice_deliveries_total", channel="webhook", outcome="sent") == 1


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The expected one is of `openssl dgst -sha256 -hmac`, over `a.1.{}`."""
    assert signature(SECRET, "a", "1", b"{}") == EXPECTED


async def test_a_receiver_that_fails_is_asked_again_with_the_same_id(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        hook.status = 503
        site = webhook_site(postgres, tmp_path, hook)
        await site.use(500)
        await site.keeper().turn()
        await site.keeper().turn()  # it waits: nothing is due
        assert len(hook.got) == 1
        assert site.metric("notices_waiting_since_timestamp_seconds")
        hook.status = 204
        site.make_due()
        await site.keeper().turn()

    ids = {headers["webhook-id"] for headers, _ in hook.got}
    assert (len(hook.got), len(ids)) == (2, 1)
    assert site.metric("notices_waiting_since_timestamp_seconds") == 0


async def test_pauses_double_up_to_an_hour(postgres: PostgresServer, tmp_path: Path) -> None:
    pauses = []
    with hook_receiver() as hook:
        hook.status = 500
        site = webhook_site(postgres, tmp_path, hook)
        await site.use(500)
        for _ in range(11):
            await site.keeper().turn()
            [(pause_s,)] = await rows(postgres, PAUSE)
            pauses.append(pause_s)
            site.make_due()

    assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


PAUSE = "select extract(epoch from next_at - tried_at)::int from headgate.notice_delivery"


async def test_a_notice_of_three_days_ago_is_given_up(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        hook.status = 500
        site = webhook_site(postgres, tmp_path, hook)
        await site.use(500)
        await site.keeper().turn()
        site.server.run_as("headgate_owner", "clean", OLDER)
        site.make_due()
        await site.keeper().turn()
        site.make_due()
        await site.keeper().turn()

    assert len(hook.got) == 2
    assert site.metric("notice_deliveries_total", channel="webhook", outcome="given_up") == 1
    assert site.metric("notices_waiting_since_timestamp_seconds") == 0


OLDER = "update headgate.notice set decided_at = decided_at - interval '73 hours'"


async def test_no_secret_comes_into_the_log(
    postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with hook_receiver() as hook, caplog.at_level(logging.DEBUG, "headgate"):
        slack = tmp_path / "slack"
        slack.write_text("http://127.0.0.1:9/s3cret\n")
        hook.status = 500
        channels = hook_channel(tmp_path, hook.url).replace("notices: {", "")
        both = f"notices: {{slack: {{url_file: {slack}}}, {channels}"
        site = Site(postgres, policy_of(MONTH, channels=both))
        await site.use(500)
        await site.keeper().turn()

    assert "webhook: the receiver answers 500" in caplog.text
    assert "slack: the receiver cannot be reached" in caplog.text
    assert "s3cret" not in caplog.text


async def test_slack_gets_a_text_in_which_no_name_is_a_sign(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as hook:
        (tmp_path / "slack").write_text(hook.url)
        channels = f"notices: {{slack: {{url_file: {tmp_path / 'slack'}}}}}"
        limit = "{count: tokens, limit: 1000, per: month, each: user, notify: [50]}"
        site = Site(postgres, policy_of(limit, channels=channels))
        await site.keeper().turn()
        await site.use(500, "<!channel>")
        await site.record("<!channel>")
        await site.keeper().turn()

    [(_, body)] = hook.got
    assert json.loads(body)["text"].startswith(
        "*acme, user &lt;!channel&gt;: 50 % of 1,000 tokens per month*\n"
    )


async def test_mail_goes_to_the_addresses_of_the_tenant_over_tls(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "first.pem", FOLDER / "first.key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    (tmp_path / "password").write_text("pw\n")
    with mail_server(context) as inbox:
        site = Site(
            postgres, mail_policy(inbox.port, f"user: hg, password_file: {tmp_path}/password")
        )
        await site.use(500)
        await site.keeper().turn()

    [text] = inbox.messages
    message = message_from_string(text, policy=default)
    [(id,)] = await rows(postgres, "select id::text from headgate.notice")
    assert message["subject"] == "acme: 50 % of 1,000 tokens per month"
    assert message["to"] == "lead@example.org, ops@example.org"
    assert message["message-id"] == f"<{id}@example.org>"
    assert "acme used 500 tokens of 1,000 tokens per month." in message.get_content()
    assert [one.split(" ")[0] for one in inbox.commands][:4] == ["ehlo", "STARTTLS", "ehlo", "AUTH"]


async def test_a_mail_server_without_tls_gets_nothing_unless_the_policy_says_so(
    postgres: PostgresServer,
) -> None:
    with mail_server() as inbox:
        site = Site(postgres, mail_policy(inbox.port))
        await site.use(500)
        await site.keeper().turn()
        assert inbox.messages == []
        site.policy = mail_policy(inbox.port, "tls: none")
        site.make_due()
        await site.keeper().turn()

    assert len(inbox.messages) == 1
    assert await rows(postgres, DELIVERIES) == [("mail", 2, True)]


async def test_mail_that_the_server_refuses_waits(postgres: PostgresServer) -> None:
    with mail_server() as inbox:
        inbox.rcpt = "450 later"
        site = Site(postgres, mail_policy(inbox.port, "tls: none"))
        await site.use(500)
        await site.keeper().turn()

    assert await rows(postgres, DELIVERIES) == [("mail", 1, False)]


async def test_a_digest_tells_what_the_last_week_was_once(postgres: PostgresServer) -> None:
    with mail_server() as inbox:
        site = Site(postgres, mail_policy(inbox.port, "tls: none", digest=", digest: week"))
        await site.record("rita", time="2026-10-20T10:00:00Z", prompt_tokens=1200)
        await site.record("sam", time="2026-10-25T23:00:00Z", status=429, limit="some limit")
        await site.record("sam", time="2026-10-26T10:00:00Z")  # of this week
        for _ in range(2):
            await site.keeper().turn()

    [text] = inbox.messages
    message = message_from_string(text, policy=default)
    assert message["subject"] == "acme: the week in Headgate"
    said = message.get_content().splitlines()
    assert said[0] == "acme from 2026-10-19 00:00 to 2026-10-26 00:00 (UTC):"
    assert said[1] == "2 requests of 2 users, 1 of them refused by a limit"
    assert said[2].startswith("1,212 tokens of input")


async def test_a_slow_or_dead_channel_does_not_hold_the_others(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with hook_receiver() as dead, mail_server() as inbox:
        dead.status = 500
        channels = hook_channel(tmp_path, dead.url).removesuffix("}")
        channels += f", {mail_channel(inbox.port, 'tls: none')}}}"
        limits = [MONTH, MONTH.replace("month", "day"), MONTH.replace("month", "year")]
        site = Site(postgres, policy_of(*limits, tenant=ADDRESSES, channels=channels))
        await site.use(500)
        await site.keeper().turn()

    assert (len(dead.got), len(inbox.messages)) == (1, 3)


ADDRESSES = "notices: {to: [lead@example.org, ops@example.org]}"
EXPECTED = "v1,OfQXofQzum3kEoEQFJu+jCS05BUEM2IKNL7/MHMAGZc="


def mail_channel(port: int, more: str = "") -> str:
    extra = f", {more}" if more else ""
    return f'mail: {{server: "127.0.0.1:{port}", sender: hg@example.org{extra}}}'


def mail_policy(port: int, more: str = "", digest: str = "") -> CompiledPolicy:
    tenant = ADDRESSES.replace("]}", f"]{digest}}}")
    channels = f"notices: {{{mail_channel(port, more)}}}"
    return policy_of(MONTH, tenant=tenant, channels=channels)
