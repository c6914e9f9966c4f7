"""Sends what is due, one notice after the other. A receiver that fails waits for its next turn."""

import logging
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import httpx

from headgate.core.clock import Clock
from headgate.core.ledger_metrics import LedgerMetrics
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection
from headgate.ledger.notices import outbox
from headgate.ledger.notices.mailing import send_mail
from headgate.ledger.notices.posting import SendError, post_signed, post_slack
from headgate.ledger.notices.values import Notice

MOST_IN_TURN = 100

log = logging.getLogger("headgate.ledger")


class Sender:
    """Sends by the channels of the policy in force."""

    def __init__(self, clock: Clock, metrics: LedgerMetrics) -> None:
        self._client: httpx.AsyncClient | None = None
        self._clock = clock
        self._metrics = metrics

    async def aclose(self) -> None:
        """Ends all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def send_due(self, connection: Connection, policy: CompiledPolicy) -> None:
        """One turn: at most MOST_IN_TURN notices. A channel that fails is left until the next."""
        channels = channels_in(policy)
        for _ in range(MOST_IN_TURN):
            failed = await self._send_next(connection, policy, channels)
            if failed is None:
                break
            channels = [one for one in channels if one != failed]
        since_s = await outbox.waiting_since(connection, channels_in(policy))
        self._metrics.notices_waiting_since.set(since_s or 0)

    async def _send_next(
        self, connection: Connection, policy: CompiledPolicy, channels: Sequence[str]
    ) -> str | None:
        """The channel that has failed, "" for none; None if nothing is due.

        The notice is locked while it is sent. A program that is killed leaves it to the others.
        """
        async with connection.transaction():
            due = await outbox.next_due(connection, channels)
            if due is None:
                return None
            channel, notice = due
            try:
                await self._send(policy, channel, notice)
            except SendError as error:
                is_given_up = await outbox.note_failed(connection, notice, channel, str(error))
                self._count(channel, "given_up" if is_given_up else "failed")
                log.warning("notice %s waits on %s: %s", notice.id, channel, error)
                return channel
            await outbox.note_sent(connection, notice, channel)
            self._count(channel, "sent")
            return ""

    async def _send(self, policy: CompiledPolicy, channel: str, notice: Notice) -> None:
        tenant, channels = policy.tenants.get(notice.tenant), policy.channels
        zone = ZoneInfo("UTC") if tenant is None else tenant.calendar.timezone
        client = self._client = self._client or httpx.AsyncClient(follow_redirects=False)
        match channel:
            case "webhook" if channels.webhook is not None:
                now_s = self._clock.now_s()
                await post_signed(client, channels.webhook, notice, zone, now_s)
            case "slack" if channels.slack is not None:
                await post_slack(client, channels.slack, notice, zone)
            case "mail" if channels.mail is not None and tenant is not None and tenant.notices.to:
                await send_mail(channels.mail, tenant.notices.to, notice, zone)
            case _:
                raise SendError("the policy names no address for it any more")

    def _count(self, channel: str, outcome: str) -> None:
        self._metrics.notice_deliveries.labels(channel, outcome).inc()


def channels_in(policy: CompiledPolicy) -> list[str]:
    """The channels that the policy has."""
    channels = policy.channels
    found = {"webhook": channels.webhook, "slack": channels.slack, "mail": channels.mail}
    return [name for name, one in found.items() if one is not None]
