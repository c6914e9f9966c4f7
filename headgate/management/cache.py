"""The handler that purges the answer cache of a tenant."""

from extproc.cache.answers import AnswersAwayError
from headgate.core.issuers import Role
from headgate.identity.change_log import recorded
from headgate.management.calls import Answer, Call
from headgate.management.endpoint import Endpoint
from headgate.management.problems import ProblemError
from headgate.management.records import Output


class PurgeBody(Output):
    """The answers of a tenant that were forgotten."""

    tenant: str
    answers: int


async def purge_cache(call: Call[None]) -> Answer:
    """How many answers of the tenant were forgotten. From now on none of them is found.

    The change is written in the same transaction: without it nothing is purged, but for a change
    that the database loses at its commit.
    """
    desk, tenant = call.desk, call.tenant
    async with desk.connect() as connection, recorded(connection, call.by, desk.clock) as recorder:
        try:
            answers = 0 if desk.answers is None else await desk.answers.purge(tenant)
        except AnswersAwayError as error:
            raise ProblemError(503, f"The answers are not purged: {error}") from None
        after = {"tenant": tenant, "answers": answers}
        await recorder.write("cache.purge", f"{tenant}/cache", None, after)
    return Answer(PurgeBody(tenant=tenant, answers=answers))


CACHE_ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/tenants/{tenant}/cache/purge",
        summary="Forget all answers that the answer cache keeps for a tenant",
        handle=purge_cache,
        least=Role.ADMIN,
        output=PurgeBody,
    ),
)
