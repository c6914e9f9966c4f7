"""The handler that takes a person's name away."""

from headgate.database.connection import DEADLINE_S, within
from headgate.identity.pseudonyms import pseudonymise
from headgate.identity.users import User
from headgate.management.calls import Answer, Call
from headgate.management.problems import ProblemError
from headgate.management.records import user_body

_IN_FILE = "The policy file has a key of this user, so the name would come back: remove it first."


async def pseudonymise_user(call: Call[None]) -> Answer:
    """The person of the path, under the name that says nothing."""
    user = call.path["user"]
    if any(caller.user == user for caller in call.policy.keys.values()):
        raise ProblemError(422, _IN_FILE, "user")
    async with call.desk.connect() as connection:
        change = pseudonymise(connection, call.desk.clock, user, call.by)
        return Answer(user_body(User(await within(DEADLINE_S, connection, change))))
