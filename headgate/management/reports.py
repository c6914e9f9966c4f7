"""The handlers of monthly reports: show a month, and close it."""

from dataclasses import replace
from datetime import UTC, datetime

from headgate.core.clock import Clock
from headgate.database.connection import Connection, within
from headgate.identity.change_log import Actor, person_id, recorded
from headgate.ledger.showback.closed import MonthError, check_closable, put_closed
from headgate.ledger.showback.month import DEADLINE_S, read_statement
from headgate.ledger.showback.values import Statement
from headgate.management.calls import Answer, Call
from headgate.management.problems import ProblemError


async def get_report(call: Call[None]) -> Answer:
    """The report of a month, of all tenants."""
    return Answer(await _statement(call))


async def get_report_of_tenant(call: Call[None]) -> Answer:
    """The lines and the budget of one tenant. The pools of all tenants are not in it."""
    statement = await _statement(call)
    report, before = statement.report, statement.before
    lines = tuple(line for line in report.lines if line.tenant == call.tenant)
    earlier = None
    if before is not None:
        of_tenant = tuple(line for line in before.lines if line.tenant == call.tenant)
        earlier = replace(before, lines=of_tenant, pools=(), budgets={})
    budgets = {name: one for name, one in report.budgets.items() if name == call.tenant}
    versions = {line.price_version for line in lines}
    own = replace(
        report,
        lines=lines,
        pools=(),
        budgets=budgets,
        prices={name: one for name, one in report.prices.items() if name in versions},
    )
    people = {line.person for line in lines}
    names = {person: name for person, name in statement.names.items() if person in people}
    return Answer(replace(statement, report=own, before=earlier, names=names))


async def close_report(call: Call[None]) -> Answer:
    """Closes a month for good, and writes it into the change log."""
    statement = await _statement(call)
    async with call.desk.connect() as connection:
        try:
            return Answer(await closed(connection, statement, call.by, call.desk.clock))
        except MonthError as error:
            raise ProblemError(409, str(error)) from None


async def closed(
    connection: Connection, statement: Statement, by: Actor, clock: Clock
) -> Statement:
    """The statement of the month that this closes. Raises MonthError, and DatabaseAwayError."""
    month = statement.report.period.month
    if statement.closing is not None:
        raise MonthError(f"{month} is closed already")
    await check_closable(connection, statement.report, statement.at)
    async with recorded(connection, by, clock) as recorder:
        person = await person_id(connection, by.name, by.display_name)
        closing = await put_closed(connection, statement.report, person, statement.at)
        await recorder.write("month.close", month, None, {"checksum": closing.checksum})
    names = {**statement.names, person: by.display_name or by.name}
    return replace(statement, closing=closing, names=names)


async def _statement(call: Call[None]) -> Statement:
    now = datetime.fromtimestamp(call.desk.clock.now_s(), UTC)
    async with call.desk.connect() as connection:
        reading = read_statement(connection, call.policy, call.path["month"], now)
        try:
            return await within(DEADLINE_S, connection, reading)
        except MonthError as error:
            raise ProblemError(409, str(error), "month") from None
