"""Loads a policy from its file: the only way in, for `check`, `serve` and reload."""

import gc
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic_core import PydanticCustomError

from headgate.core.errors import OperatorError
from headgate.core.policy import CompiledPolicy
from headgate.policy.compile import compile_policy
from headgate.policy.composer import compose
from headgate.policy.document import POLICY, FileKind, YamlMapping, scalar
from headgate.policy.problems import FileError, PolicyError, PolicyRule, Problem
from headgate.policy.references import check_references
from headgate.policy.schema import PolicyFile
from headgate.policy.shape import check_shape
from headgate.policy.urls import UPSTREAM_RULE, upstream_url

MAX_SIZE_BYTES = 32 * 1024 * 1024
"""40,000 keys take 4.4 MB; 10,000 tenants with 20 limits and 5 keys each take 19 MB."""


def load_policy(path: Path) -> CompiledPolicy:
    """Reads, checks and compiles the policy. Raises PolicyError with every mistake."""
    return parse_policy(read_policy(path), str(path))


def read_policy(path: Path) -> bytes:
    """The bytes of the file. Raises PolicyError when it cannot be read or is too big."""
    return read_file(path, POLICY, PolicyError)


def read_file(path: Path, kind: FileKind, error_type: type[FileError]) -> bytes:
    """The bytes of a file. Raises `error_type` when it cannot be read or is too big."""

    def refused(rule: PolicyRule, fault: str) -> FileError:
        advice = f"a {kind.noun} is a readable file of at most {MAX_SIZE_BYTES} bytes"
        problem = Problem(rule=rule, fault=fault, advice=advice)
        return error_type((problem.render(str(path)),))

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refused(PolicyRule.UNREADABLE, "cannot be read (not a file)")
        with path.open("rb") as file:
            data = file.read(MAX_SIZE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a path"
        raise refused(PolicyRule.UNREADABLE, f"cannot be read ({why})") from None
    if len(data) > MAX_SIZE_BYTES:
        raise refused(PolicyRule.TOO_BIG, f"is larger than {MAX_SIZE_BYTES} bytes")
    return data


def parse_policy(data: bytes, file: str) -> CompiledPolicy:
    """Checks and compiles the bytes of a policy; `file` is its name in messages.

    Raises PolicyError with every mistake, in the order of their lines.
    """
    with _without_cycle_search():
        policy, problems = find_problems(data)
        if policy is None:
            raise PolicyError(tuple(problem.render(file) for problem in problems))
        return compile_policy(policy)


def check_upstream(url: str) -> None:
    """Checks the URL of `--upstream` by the rules of the file. Raises OperatorError."""
    try:
        upstream_url(url)
    except PydanticCustomError as error:
        raise OperatorError(f"--upstream {error.message()}; allowed: {UPSTREAM_RULE}") from None


def find_problems(data: bytes) -> tuple[PolicyFile | None, list[Problem]]:
    """The policy and no problems, or None and every problem in the order of their lines."""
    root, problems = compose_bytes(data, POLICY, scalar)
    if root is None:
        return None, problems
    policy, shape_problems = check_shape(root)
    problems = [*problems, *shape_problems, *check_references(root)]
    if policy is None or problems:
        return None, sorted(problems, key=lambda problem: problem.line)
    return policy, []


def compose_bytes(
    data: bytes, kind: FileKind, plain: Callable[[str], object]
) -> tuple[YamlMapping | None, list[Problem]]:
    """Composes the bytes of a file, which must be UTF-8. See `compose`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fault = f"the byte 0x{data[error.start]:02x} here is not UTF-8"
        advice = "save the file as UTF-8"
        return None, [Problem(rule=PolicyRule.NOT_UTF8, fault=fault, advice=advice, line=line)]
    return compose(text, kind, plain)


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Pauses Python's search for garbage cycles, as the values of a policy form none.

    The search would walk through millions of values again and again. For a big policy, that takes
    longer than all other work, and every request in flight waits for seconds.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:  # of two calls at once, the first turns it off and on again
            gc.enable()
