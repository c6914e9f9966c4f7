"""Reads fields of a JSON body the way pydantic's lax mode does for vLLM.

`"5"` and `5.0` are the integer 5, `"true"` and `1` are true, null is as good as absent.
"""

import json
from typing import Any

from headgate.simulator.vllm_errors import BODY_INVALID, VllmError, invalid_body

_MAX_SALT_CHARS = 1024
_MAX_DEPTH = 700
"""Python's encoder goes some 1,000 frames deep, those of its callers included."""
_TRUE = frozenset({"true", "1", "on", "t", "y", "yes"})
_FALSE = frozenset({"false", "0", "off", "f", "n", "no"})


def read_json(content_type: str, body: bytes) -> "Fields":
    """The body's fields. Anything but a JSON object under a JSON content type: VllmError 400.

    A key that comes twice counts with its last value. NaN and Infinity are read as null.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        message = "Unsupported Media Type: Only 'application/json' is allowed"
        raise VllmError(400, BODY_INVALID, f"1 validation error:\n  {message}")
    if not body:
        raise invalid_body("missing", "body", "Field required")
    try:
        value = json.loads(body, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise invalid_body("json_invalid", f"body.{error.pos}", "JSON decode error") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number too long, too deep
        raise VllmError(400, BODY_INVALID, "There was an error parsing the body") from error
    if _is_deeper_than(value, _MAX_DEPTH):
        raise invalid_body("recursion_loop", "body", "The body is nested too deeply")
    if not isinstance(value, dict):
        raise invalid_body("model_attributes_type", "body", "Input should be a valid dictionary")
    if b"\\u" in body:
        _refuse_lone_surrogates(value)
    return Fields(value)


def _is_deeper_than(value: object, depth: int) -> bool:
    """Whether lists and objects are nested deeper: then encoding them again might fail later."""
    level = [value]
    for _ in range(depth):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse_lone_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        message = "Input should be a valid string, unable to parse raw data as a unicode string"
        raise invalid_body("string_unicode", "body", message) from error


class Fields:
    """One JSON object; `where` is its path in the body, for messages."""

    def __init__(self, values: dict[str, Any], where: str = "body") -> None:
        self.values = values
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def raw(self, name: str) -> Any:
        """The value as it came, None where it is absent."""
        return self.values.get(name)

    def required(self, name: str) -> Any:
        """The value; VllmError 400 where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            raise invalid_body("missing", self.path(name), "Field required")
        return value

    def text(self, name: str) -> str | None:
        """A string. Numbers are refused."""
        value = self.values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise invalid_body("string_type", self.path(name), "Input should be a valid string")

    def integer(self, name: str) -> int | None:
        """An integer, also written as `5.0` or `"5"`."""
        value = self.values.get(name)
        if value is None or isinstance(value, int):
            return value if value is None else int(value)
        try:
            whole = int(value) if isinstance(value, str) else value
            if isinstance(whole, int | float) and whole == int(whole):
                return int(whole)
        except (ValueError, OverflowError):
            pass
        raise invalid_body("int_parsing", self.path(name), "Input should be a valid integer")

    def flag(self, name: str) -> bool:
        """A boolean, also written as 0, 1 or a word such as `"true"`; absent is false."""
        value = self.values.get(name)
        if value is None:
            return False
        word = str(value).lower() if isinstance(value, str | int) else ""
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise invalid_body("bool_parsing", self.path(name), "Input should be a valid boolean")

    def array(self, name: str) -> list[Any] | None:
        """A list."""
        value = self.values.get(name)
        if value is None or isinstance(value, list):
            return value
        raise invalid_body("list_type", self.path(name), "Input should be a valid list")

    def object(self, name: str) -> "Fields | None":
        """An object within this one."""
        value = self.values.get(name)
        if value is None:
            return None
        return objects([value], self.path(name))[0]

    def objects(self, name: str) -> "list[Fields]":
        """A list of objects; absent is empty."""
        return objects(self.array(name) or [], self.path(name))

    def cache_salt(self) -> str:
        """The prefix cache's salt; "" for none."""
        salt = self.text("cache_salt")
        if salt is not None and not 1 <= len(salt) <= _MAX_SALT_CHARS:
            message = f"String should have 1 to {_MAX_SALT_CHARS} characters"
            raise invalid_body("string_length", self.path("cache_salt"), message)
        return salt or ""

    def path(self, name: str) -> str:
        """The field's path in the body."""
        return f"{self.where}.{name}"


def objects(values: list[Any], where: str) -> list[Fields]:
    """Each value as an object; VllmError 400 where one is something else."""
    for value in values:
        if not isinstance(value, dict):
            raise invalid_body("dict_type", where, "Input should be a valid dictionary")
    return [Fields(value, where) for value in values]
