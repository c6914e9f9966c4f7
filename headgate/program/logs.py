"""The log of `up` and `serve`: one event on one line, for people or for machines.

Times are in UTC. An event may carry the facts of its request in the `extra` of Python's logging.
"""

import json
import logging
import signal
from datetime import UTC, datetime
from functools import partial

from headgate.program.settings import LogFormat, LogSettings

FACTS = ("request_id", "trace_id", "tenant", "model", "limit", "status")
"""The facts of a request that an event may carry, in the order in which they are shown."""


_OURS = logging.getLogger("headgate")


def configure_logs(settings: LogSettings) -> None:
    """Writes the log of the whole program to standard error from now on.

    The level is that of our own events; libraries log from WARNING on. SIGUSR1 changes between it
    and DEBUG.
    """
    handler = logging.StreamHandler()
    is_json = settings.format is LogFormat.JSON
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _OURS.setLevel(settings.level.upper())
    signal.signal(signal.SIGUSR1, partial(_change_level, _OURS.level))


def _change_level(usual: int, *_: object) -> None:
    level = usual if _OURS.level == logging.DEBUG else logging.DEBUG
    _OURS.setLevel(level)
    _OURS.log(max(level, logging.WARNING), "logs from %s on now", logging.getLevelName(level))


class TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER MESSAGE`, then the known facts as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().replace("\n", "\\n")
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {message}{facts}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """A JSON object: time, level, logger, message, the known facts, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: fact for name in FACTS if (fact := vars(record).get(name)) is not None}


def _time(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"
