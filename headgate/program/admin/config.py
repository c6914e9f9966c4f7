"""The settings in force, for people who look at a running program."""

import dataclasses
import json
import re
from typing import Any

from headgate.program.settings import ServiceSettings

_CREDENTIALS = re.compile(r"(?<=://)[^@/\s]*@")


def shown_settings(settings: ServiceSettings) -> Any:
    """The settings as JSON values. The user and password of a URL are shown as `***`.

    Files with secrets are named, and not read.
    """
    text = json.dumps(dataclasses.asdict(settings), default=str)
    return json.loads(_CREDENTIALS.sub("***@", text))
