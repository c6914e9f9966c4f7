"""The log of `up` and `serve`: one event on one line, for people or for machines.

Times are in UTC. An event may carry the facts of its request in the `extra` of Python's logging.
"""

import json
import logging
from datetime import UTC, datetime

from headgate.program.settings import LogFormat, LogLevel, LogSettings

FACTS = ("request_id", "trace_id", "tenant", "model", "limit", "status")
"""The facts of a request that an event may carry, in the order in which they are shown."""


_OURS = logging.getLogger("headgate")


def configure_logs(settings: LogSettings) -> None:
    """Writes the log of the whole program to standard error from now on.

    The level is that of our own events; libraries log from WARNING on.
    """
    handler = logging.StreamHandler()
    is_json = settings.format is LogFormat.JSON
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    set_level(settings.level)


def set_level(level: LogLevel) -> None:
    """The level of our own events from now on."""
    _OURS.setLevel(level.upper())


def switch_level(usual: LogLevel) -> LogLevel:
    """Changes the level to DEBUG, or from there back to the usual one; returns and says it."""
    level = usual if _OURS.level == logging.DEBUG else LogLevel.DEBUG
    set_level(level)
    _OURS.log(max(_OURS.level, logging.WARNING), "logs from %s on now", level.upper())
    return level


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
