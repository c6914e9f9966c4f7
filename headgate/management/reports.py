"""The handlers of monthly reports: show a month, and close it."""

from dataclasses import replace
from datetime import UTC, datetime

from headgate.database.connection import within
from headgate.identity.change_log import person_id, recorded
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
    month = statement.report.period.month
    if statement.closing is not None:
        raise ProblemError(409, f"{month} is closed already")
    async with call.desk.connect() as connection:
        try:
            await check_closable(connection, statement.report, statement.at)
            async with recorded(connection, call.by, call.desk.clock) as recorder:
                person = await person_id(connection, call.by.name, call.by.display_name)
                closing = await put_closed(connection, statement.report, person, statement.at)
                after = {"checksum": closing.checksum}
                await recorder.write("month.close", month, None, after)
        except MonthError as error:
            raise ProblemError(409, str(error)) from None
    names = {**statement.names, person: call.by.display_name or call.by.name}
    return Answer(replace(statement, closing=closing, names=names))


async def _statement(call: Call[None]) -> Statement:
    now = datetime.fromtimestamp(call.desk.clock.now_s(), UTC)
    async with call.desk.connect() as connection:
        reading = read_statement(connection, call.policy, call.path["month"], now)
        try:
            return await within(DEADLINE_S, connection, reading)
        except MonthError as error:
            raise ProblemError(409, str(error), "month") from None
