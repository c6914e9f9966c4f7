"""The access log hook: turns Envoy's finished requests into usage records."""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Sequence

from accesslog.calls import (
    EndPlaced,
    KnownOutcome,
    LearnUsage,
    SettleReservation,
    TellReached,
    WithinLimit,
    not_placed,
    not_told,
)
from accesslog.console import ConsoleSink
from accesslog.counts import RequestCounts
from accesslog.endings import answered_by, is_unanswered
from accesslog.meter import FinishedRequest, PriceOf, meter
from accesslog.reached import reached
from accesslog.sink import Sink
from accesslog.types import OpenReservation, UsageRecord
from accesslog.wire import parse, read_entry
from headgate._gen.accesslog_pb2 import HTTPAccessLogEntry, StreamAccessLogsResponse
from headgate.core.apis import FORM_APIS
from headgate.core.clock import Clock
from headgate.core.damping import DampedLog
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.core.rpc import Method
from headgate.core.settlement import Source

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
METHOD = "StreamAccessLogs"
_VIA = "accesslog"
_SERVER_ERROR = 500

SETTLES_AT_ONCE = 32
"""For a store that is asked over a network. A store in this process takes one after the other."""
ENTRIES_AT_ONCE = 8
"""Entries are handled in groups of this size. Between two groups the loop runs the hooks."""
_CHECKED = "ext_authz_"
"""How Envoy's details begin for a request that ext_authz refused, or could not decide about."""

log = logging.getLogger("headgate.accesslog")


class AccessLogService:
    """`envoy.service.accesslog.v3.AccessLogService`: records, teaches and settles.

    A request that ended before ext_authz saw it gets a record only `within_limit`. Otherwise a
    client without a key could fill the disk.

    The console gets them last, as it shows the limits.

    `unanswered` gets the id of each request that ended while its check ran.

    For each message the records are written first. Then every reservation is settled a second time,
    in case the rate-limit service's own settlement was lost.

    If this settlement fails too, because of a store outage, it is counted, logged and not retried.
    The record has the true numbers. The limits keep the estimate until their window ends, and the
    request's concurrency slot becomes free when its lease ends.
    """

    def __init__(
        self,
        *,
        settle: SettleReservation,
        known_outcome: KnownOutcome,
        unanswered: Callable[[str], None],
        learn: LearnUsage,
        price_of: PriceOf,
        sinks: Sequence[Sink],
        console: ConsoleSink | None = None,
        policy: Callable[[], CompiledPolicy],
        metrics: Metrics,
        within_limit: WithinLimit,
        clock: Clock,
        replica: str | None = None,
        ended: EndPlaced = not_placed,
        told: TellReached = not_told,
        settles_at_once: int = SETTLES_AT_ONCE,
    ) -> None:
        self._settle = settle
        self._known_outcome = known_outcome
        self._outcomes = metrics.settlements.labels
        self._unanswered = unanswered
        self._learn = learn
        self._price_of = price_of
        self._replica = replica
        self._ended = ended
        self._told = told
        self._sinks = sinks
        self._console = console
        self._counts = RequestCounts(metrics, policy)
        self._metrics = metrics
        self._within_limit = within_limit
        self._settles_at_once = settles_at_once
        self._settling = asyncio.Semaphore(settles_at_once)
        self._say = DampedLog(log, clock)
        self.open_streams = 0
        """How many proxies send their log here now."""
        self.handled_entries = 0
        """How many log entries have been recorded and settled, or dropped as unreadable."""

    def methods(self) -> tuple[Method, ...]:
        """The methods of the service. Messages come as bytes, to count bad ones here."""
        method = Method(
            path=f"/{SERVICE}/{METHOD}",
            behavior=self.stream_access_logs,
            read=bytes,
            write=StreamAccessLogsResponse.SerializeToString,
            takes_stream=True,
        )
        return (method,)

    async def stream_access_logs(
        self, messages: AsyncIterable[bytes], _context: object
    ) -> StreamAccessLogsResponse:
        """Handles message after message for as long as Envoy keeps the stream."""
        self.open_streams += 1
        self._metrics.of_requests.access_log_streams.inc()
        try:
            async for message in messages:
                with self._metrics.time_hook("accesslog"):
                    await self.handle(message)
        finally:
            self.open_streams -= 1
            self._metrics.of_requests.access_log_streams.dec()
        return StreamAccessLogsResponse()

    async def handle(self, message: bytes) -> None:
        """Handles one message with any number of entries; never raises for its content."""
        try:
            entries = parse(message)
        except ValueError as error:
            self._metrics.records.labels("failed").inc()
            text = f"dropped an access log message of {len(message)} bytes: {error}"
            self._say(logging.ERROR, "message", text)
            return
        records: list[UsageRecord] = []
        reservations: list[OpenReservation] = []
        for number, entry in enumerate(entries):
            if number and number % ENTRIES_AT_ONCE == 0:
                await asyncio.sleep(0)
            request = self._metered(entry)
            if request is None:
                continue
            if self._is_recorded(request.record):
                records.append(request.record)
            if request.reservation is not None:
                reservations.append(request.reservation)
        await self._write(records)
        if len(entries) > 1:
            await asyncio.sleep(0)
        await self._settle_all(reservations)
        if self._console is not None:
            await self._show(self._console, records)
        self.handled_entries += len(entries)

    def _metered(self, entry: HTTPAccessLogEntry) -> FinishedRequest | None:
        """Reads, counts and learns from an entry; None for that of a running request."""
        logged = read_entry(entry)
        if is_unanswered(logged):
            self._unanswered(logged.request_id)
        request = meter(logged, self._price_of, self._replica)
        if request is None:
            return None
        self._counts.count(request.record)
        if request.placed is not None:
            self._ended(*request.placed)
            self._counts.count_place(request.record, answered_by(logged))
        for each in reached(logged, request.record):
            self._told(each)
        self._say_failure(request.record)
        if request.reservation is not None and request.reservation.usage.complete:
            self._teach(request.record, request.text_bytes)
        return request

    async def _show(self, console: ConsoleSink, records: Sequence[UsageRecord]) -> None:
        for begin in range(0, len(records), ENTRIES_AT_ONCE):
            await asyncio.sleep(0)
            await console.write(records[begin : begin + ENTRIES_AT_ONCE])

    def _say_failure(self, record: UsageRecord) -> None:
        """A line for a refusal by a limit, and for a client's 5xx that no upstream sent.

        Those of an upstream are in its own log.
        """
        if record.limit is not None:
            text = "%s/%s is over its limit: %s"
            log.info(text, record.tenant, record.user, record.limit, extra=_facts(record))
        elif (record.status or 0) >= _SERVER_ERROR and record.upstream_status is None:
            kind = (record.status, record.details, record.model)
            text = f"a client got {record.status}: {record.details}"
            self._say(logging.WARNING, kind, text, _facts(record))

    def _is_recorded(self, record: UsageRecord) -> bool:
        """ext_authz has counted what it refused; all others without a caller it has not seen."""
        if record.tenant is not None or (record.details or "").startswith(_CHECKED):
            return True
        if self._within_limit(record.ip or ""):
            return True
        self._metrics.records.labels("left_out").inc()
        return False

    async def _write(self, records: Sequence[UsageRecord]) -> None:
        """Gives the records to every sink; they count as written once all sinks wrote them."""
        outcome = "written"
        for sink in self._sinks:
            try:
                await sink.write(records)
            except Exception as error:  # a full disk must not end the log stream
                outcome = "failed"
                text = f"cannot write {len(records)} usage records: {error}"
                self._say(logging.ERROR, "records", text)
        self._metrics.records.labels(outcome).value += len(records)

    def _teach(self, record: UsageRecord, text_bytes: int) -> None:
        """Learns from a whole answer. An aborted answer says nothing about the length to expect,
        a recording nothing about text."""
        if record.source is not Source.USAGE or record.status != 200 or record.api in FORM_APIS:
            return
        if record.cache is not None:  # its own request has taught the same
            return
        if record.tenant is None or record.user is None or record.model is None:
            return
        prompt, completion = record.prompt_tokens or 0, record.completion_tokens or 0
        self._learn((record.tenant, record.user, record.model), text_bytes, prompt, completion)
        if record.estimated_tokens is not None and prompt + completion > 0:
            ratio = record.estimated_tokens / (prompt + completion)
            self._counts.count_estimate(record.model, ratio)

    async def _settle_all(self, reservations: Sequence[OpenReservation]) -> None:
        """Settles those that are not settled already, as this process knows."""
        left: list[OpenReservation] = []
        for each in reservations:
            if not self._is_settled(each):
                left.append(each)
        settle = self._settle_in_turn if self._settles_at_once == 1 else self._settle_together
        if failed := await settle(left):
            text = f"cannot settle {len(failed)} of {len(left)} requests: {failed[0]!r}"
            self._say(logging.ERROR, "settlements", text)

    async def _settle_in_turn(self, reservations: Sequence[OpenReservation]) -> list[Exception]:
        """With a store in this process, which answers at once: without tasks."""
        failed = []
        for number, reservation in enumerate(reservations):
            if number and number % ENTRIES_AT_ONCE == 0:
                await asyncio.sleep(0)
            error = await self._settle_one(reservation)
            if error is not None:
                failed.append(error)
        return failed

    async def _settle_together(self, reservations: Sequence[OpenReservation]) -> list[Exception]:
        """Several at a time, so that a slow store delays the log stream only once."""
        failed: list[Exception] = []
        for begin in range(0, len(reservations), self._settles_at_once):
            some = reservations[begin : begin + self._settles_at_once]
            errors = await asyncio.gather(*map(self._settle_in_line, some))
            failed += [error for error in errors if error is not None]
        return failed

    async def _settle_in_line(self, reservation: OpenReservation) -> Exception | None:
        async with self._settling:
            return await self._settle_one(reservation)

    def _is_settled(self, reservation: OpenReservation) -> bool:
        """Whether there is nothing to settle, as this process knows; counts it then."""
        outcome = self._known_outcome(reservation.id, reservation.tenant)
        if outcome is None:
            return False
        self._outcomes(_VIA, outcome).value += 1
        return True

    async def _settle_one(self, reservation: OpenReservation) -> Exception | None:
        try:
            outcome = await self._settle(
                reservation.id,
                reservation.tenant,
                reservation.usage,
                reservation.estimate,
                reservation.held_by,
            )
        except Exception as error:  # one request's failure must not end the stream
            self._metrics.store_errors.labels("settle").inc()
            return error
        self._outcomes(_VIA, outcome).value += 1
        return None


def _facts(record: UsageRecord) -> dict[str, object]:
    """The facts by which a line of the log is found and followed."""
    names = ("request_id", "trace_id", "tenant", "limit", "status")
    model = record.model or record.requested_model
    return {"model": model} | {name: getattr(record, name) for name in names}
