"""Errors while a request is answered, as the problem that its sender gets."""

import logging
import secrets
from collections.abc import Awaitable, Callable

from starlette.responses import Response

from headgate.adapters.rules import AdapterRuleError
from headgate.core.errors import OperatorError
from headgate.database.connection import DatabaseAwayError
from headgate.identity.issuers.fetch import FetchError
from headgate.identity.keys import KeyRuleError
from headgate.identity.store import KeyChangedError
from headgate.ledger.asking import TooWideError
from headgate.management.problems import ProblemError, problem_response

log = logging.getLogger("headgate")


async def without_errors(
    name: str,
    answer: Callable[[], Awaitable[Response]],
    shown: Callable[[ProblemError], Response] = problem_response,
) -> Response:
    """The answer, or in its place the problem as `shown` writes it. `name` is for the log.

    An error that nobody foresaw is a 500 with a number, under which the log has its trace.
    """
    try:
        return await answer()
    except ProblemError as error:
        return shown(error)
    except (KeyRuleError, KeyChangedError, AdapterRuleError) as error:
        return shown(_conflict(error))
    except TooWideError as error:
        return shown(ProblemError(422, str(error)))
    except (DatabaseAwayError, FetchError, OperatorError) as error:
        log.error("%s: %s", name, error)
        return shown(ProblemError(503, _away(error)))
    except Exception:
        fault = secrets.token_hex(4)
        log.exception("%s: a fault of Headgate, with the number %s", name, fault)
        text = f"A fault of Headgate, number {fault}. Its log says more under this number."
        return shown(ProblemError(500, text))


def _away(error: DatabaseAwayError | FetchError | OperatorError) -> str:
    if isinstance(error, DatabaseAwayError):
        return "The database is away. Look before you repeat."
    if isinstance(error, FetchError):
        return "The issuer does not answer as it should. Try again."
    return "The gateway is not set up; its log says why."


def _conflict(error: KeyRuleError | KeyChangedError | AdapterRuleError) -> ProblemError:
    if isinstance(error, KeyChangedError):
        return ProblemError(412, str(error))
    status = {"key": 409, "revocation": 404, "adapter": 404}.get(error.field, 422)
    return ProblemError(status, str(error), error.field)
