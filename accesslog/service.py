"""The access log hook: turns Envoy's finished requests into usage records."""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Container, Iterator, Sequence
from typing import Protocol, TypeVar

from accesslog.meter import FinishedRequest, PricesOf, meter
from accesslog.sink import Sink
from accesslog.types import LogEntry, OpenReservation, UsageRecord
from accesslog.wire import decode
from headgate._gen.accesslog_pb2 import StreamAccessLogsResponse
from headgate.core.apis import FORM_APIS, Api
from headgate.core.contract import ABSENT
from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.core.rpc import Method
from headgate.core.settlement import Estimate, Source, Usage

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
METHOD = "StreamAccessLogs"

_SETTLES_AT_ONCE = 32
ENTRIES_AT_ONCE = 8
"""Entries are handled in groups of this size. Between two groups the loop runs the hooks."""
_CHECKED = "ext_authz_"
"""How Envoy's details begin for a request that ext_authz refused, or could not decide about."""
_STATUSES = range(100, 600)
_APIS = frozenset(Api)

log = logging.getLogger("headgate.accesslog")

T = TypeVar("T")


class SettleReservation(Protocol):
    """Settles a reservation once: the first settlement counts, later calls change nothing.

    Returns the outcome, a label of headgate_settlements. It must bound its own time. It may raise:
    see `AccessLogService`.
    """

    async def __call__(
        self, reservation: str, tenant: str, usage: Usage, estimate: Estimate, held_by: str, /
    ) -> str: ...


class LearnUsage(Protocol):
    """Learns the tokens that a request with `text_bytes` of text really used. It does not raise.

    `subject` is the tenant, the user and the model.
    """

    def __call__(
        self,
        subject: tuple[str, str, str],
        text_bytes: int,
        prompt_tokens: int,
        completion_tokens: int,
        /,
    ) -> None: ...


class WithinLimit(Protocol):
    """Counts a request without a known key against its address; False beyond the limit."""

    def __call__(self, address: str, /) -> bool: ...


class AccessLogService:
    """`envoy.service.accesslog.v3.AccessLogService`: records, teaches and settles.

    A request that ended before ext_authz saw it gets a record only `within_limit`. Otherwise a
    client without a key could fill the disk.

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
        learn: LearnUsage,
        prices_of: PricesOf,
        sinks: Sequence[Sink],
        policy: Callable[[], CompiledPolicy],
        metrics: Metrics,
        within_limit: WithinLimit,
    ) -> None:
        self._settle = settle
        self._learn = learn
        self._prices_of = prices_of
        self._sinks = sinks
        self._policy = policy
        self._metrics = metrics
        self._within_limit = within_limit
        self._settling = asyncio.Semaphore(_SETTLES_AT_ONCE)
        self._settle_fails = False
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
        try:
            async for message in messages:
                with self._metrics.time_hook("accesslog"):
                    await self.handle(message)
        finally:
            self.open_streams -= 1
        return StreamAccessLogsResponse()

    async def handle(self, message: bytes) -> None:
        """Handles one message with any number of entries; never raises for its content."""
        try:
            entries = decode(message)
        except ValueError as error:
            self._metrics.records.labels("failed").inc()
            log.error("dropped an access log message of %d bytes: %s", len(message), error)
            return
        open_ones: list[OpenReservation] = []
        for some in _groups(entries, ENTRIES_AT_ONCE):
            open_ones += await self._record(some)
            await asyncio.sleep(0)
        for some_open in _groups(open_ones, _SETTLES_AT_ONCE):
            await self._settle_all(some_open)
        self.handled_entries += len(entries)

    async def _record(self, entries: Sequence[LogEntry]) -> list[OpenReservation]:
        """Writes and counts the records of some entries; returns what has to be settled."""
        metered = (meter(entry, self._prices_of) for entry in entries)
        finished: list[FinishedRequest] = [request for request in metered if request is not None]
        records = [request.record for request in finished]
        await self._write([record for record in records if self._is_recorded(record)])
        for request in finished:
            self._count(request.record)
            if request.reservation is not None and request.reservation.usage.complete:
                self._teach(request.record, request.text_bytes)
        return [request.reservation for request in finished if request.reservation is not None]

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
                log.error("cannot write %d usage records: %s", len(records), error)
        self._metrics.records.labels(outcome).inc(len(records))

    def _count(self, record: UsageRecord) -> None:
        """Counts one request. Labels come only from the policy in force and from our own names:
        each new label would cost memory forever."""
        policy = self._policy()
        tenant = _known(record.tenant, policy.tenants)
        model = _known(record.model, policy.models)
        status = _known(record.status, _STATUSES)
        self._metrics.requests.labels(tenant, model, _known(record.api, _APIS), status).inc()
        kinds = {
            "prompt": record.prompt_tokens,
            "cached": record.cached_tokens,
            "completion": record.completion_tokens,
            "reasoning": record.reasoning_tokens,
        }
        for kind, tokens in kinds.items():
            if tokens:
                self._metrics.tokens.labels(tenant, model, kind).inc(tokens)
        if record.ttft_s is not None:
            self._metrics.ttft_seconds.labels(model).observe(record.ttft_s)

    def _teach(self, record: UsageRecord, text_bytes: int) -> None:
        """Learns from a whole answer. An aborted answer says nothing about the length to expect,
        a recording nothing about text."""
        if record.source is not Source.USAGE or record.status != 200 or record.api in FORM_APIS:
            return
        if record.tenant is None or record.user is None or record.model is None:
            return
        prompt, completion = record.prompt_tokens or 0, record.completion_tokens or 0
        self._learn((record.tenant, record.user, record.model), text_bytes, prompt, completion)
        if record.estimated_tokens is not None and prompt + completion > 0:
            ratio = record.estimated_tokens / (prompt + completion)
            model = _known(record.model, self._policy().models)
            self._metrics.estimate_ratio.labels(model).observe(ratio)

    async def _settle_all(self, reservations: Sequence[OpenReservation]) -> None:
        """Settles several at a time, so that a slow store delays the log stream only once.

        Logs only the first failure in a row, because every message of an outage fails.
        """
        errors = await asyncio.gather(*map(self._settle_one, reservations))
        failed = [error for error in errors if error is not None]
        if failed and not self._settle_fails:
            log.error(
                "cannot settle %d of %d requests: %r", len(failed), len(reservations), failed[0]
            )
        if reservations:
            self._settle_fails = bool(failed)

    async def _settle_one(self, reservation: OpenReservation) -> Exception | None:
        async with self._settling:
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
        self._metrics.settlements.labels("accesslog", outcome).inc()
        return None


def _known(label: object, labels: Container[object]) -> str:
    return str(label) if label in labels else ABSENT


def _groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))
