"""The problems of a file that is not YAML, in words for an operator."""

import re
from dataclasses import dataclass

from ruamel.yaml.error import MarkedYAMLError

from headgate.policy.document import FileKind
from headgate.policy.problems import PolicyRule, Problem

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Everything but YAML 1.2's printable characters (5.1)."""


@dataclass(frozen=True, slots=True)
class _Hint:
    """Words for an operator. `at_opening`: the problem is where the text in quotes opens."""

    fault: str
    advice: str
    at_opening: bool = False


_DEFAULT = _Hint("this is not valid YAML", "check the quotes, brackets and indentation here")
_UNALIGNED = _Hint(
    "this line is not aligned with the lines above", "indent all keys of a mapping equally"
)
_HINTS = {
    "mapping values": _Hint(
        "a ':' is not allowed here",
        "put text that contains ': ' in quotes, or end the line above with ':'",
    ),
    "unexpected ':'": _Hint(
        "text within {} or [] contains a ':' but has no quotes",
        'put the text in quotes, as in {upstream: "http://127.0.0.1:8000"}',
        at_opening=True,
    ),
    "unexpected end of stream": _Hint(
        "the quote that opens here is never closed",
        "end the text with the same quote",
        at_opening=True,
    ),
    "',' or ']'": _Hint(
        "a '[' is not closed before here", "separate values with ',' and end them with ']'"
    ),
    "',' or '}'": _Hint(
        "a '{' is not closed before here", "separate entries with ',' and end them with '}'"
    ),
    "block end": _UNALIGNED,
    "expected key": _UNALIGNED,
    "cannot start any token": _Hint(
        "this character is not allowed here", "indent with spaces, or put the text in quotes"
    ),
    "unknown escape": _Hint(
        "the text in quotes contains an unknown escape",
        "use single quotes, in which \\ is a plain character",
        at_opening=True,
    ),
}
"""By words of the parser's error (Python's or C's)."""


def syntax_problem(error: MarkedYAMLError) -> Problem:
    """The problem of an error that the parser marked with its place."""
    matching = (hint for words, hint in _HINTS.items() if words in f"{error.problem}")
    hint = next(matching, _DEFAULT)
    fault, mark = hint.fault, error.problem_mark
    if error.context_mark is not None:
        if hint.at_opening:
            mark = error.context_mark
        elif "is not closed" in fault:
            fault += f" (opened on line {error.context_mark.line + 1})"
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return Problem(
        rule=PolicyRule.SYNTAX, fault=fault, advice=hint.advice, line=line, column=column
    )


def character_problem(text: str, kind: FileKind) -> Problem:
    """The problem of a text with a character that YAML forbids.

    The parsers' own position is of no use: Python's counts characters, C's bytes.
    """
    advice = f"a {kind.noun} is printable text in UTF-8"
    match = _FORBIDDEN.search(text)
    if match is None:
        fault = "the file contains an invalid character"
        return Problem(rule=PolicyRule.SYNTAX, fault=fault, advice=advice)
    before = text[: match.start()]
    fault = f"the file contains a control character (U+{ord(match[0]):04X}) here"
    return Problem(
        rule=PolicyRule.SYNTAX,
        fault=fault,
        advice=advice,
        line=before.count("\n") + 1,
        column=match.start() - before.rfind("\n"),
    )
