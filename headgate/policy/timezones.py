"""The names of time zones in a policy file."""

from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator

from headgate.policy.fields import invalid
from headgate.policy.problems import PolicyRule, hint, shown

TIMEZONE_RULE = "a name from the IANA timezone database, such as Europe/Berlin"


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        close = hint(name, sorted(available_timezones()))
        raise invalid(
            PolicyRule.BAD_TIMEZONE, f"is not a timezone (value {shown(name)}){close}"
        ) from None
    return name


Timezone = Annotated[str, AfterValidator(_timezone)]
