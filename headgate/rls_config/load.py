"""From files and directories to the domains in force: the one way in, for serve and reload."""

from pathlib import Path
from typing import TypeAlias

from headgate.policy.load import read_file
from headgate.policy.problems import FileError, Problem, shown
from headgate.rls_config.check import FILE_KIND, DropInRule, check_file
from ratelimit.descriptors.tree import Domains, Level

Contents: TypeAlias = tuple[tuple[Path, bytes], ...]


class DropInError(FileError):
    """Configuration of envoyproxy/ratelimit that cannot be used."""


def load_dropin(paths: tuple[Path, ...]) -> Domains:
    """Reads, checks and compiles everything. Raises DropInError with every mistake."""
    return parse_dropin(tuple((path, read_dropin(path)) for path in dropin_files(paths)))


def dropin_files(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files that `paths` stand for: of a directory its `*.yaml`, by name, no hidden ones.

    Raises DropInError for a directory without any: it would leave every call without limits.
    """
    files: list[Path] = []
    problems = []
    for path in paths:
        if not _is_directory(path):
            files.append(path)
            continue
        found = sorted(file for file in path.glob("*.yaml") if not file.name.startswith("."))
        if not found:
            what, allowed = "the directory holds no file", "at least one file *.yaml"
            problems.append(Problem(DropInRule.EMPTY_DIRECTORY, what, allowed).render(str(path)))
        files += found
    if problems:
        raise DropInError(tuple(problems))
    return tuple(dict.fromkeys(files))


def read_dropin(path: Path) -> bytes:
    """The bytes of one file. Raises DropInError when it cannot be read or is too big."""
    return read_file(path, FILE_KIND, DropInError)


def parse_dropin(contents: Contents) -> Domains:
    """Checks and compiles the files. Raises DropInError with every mistake of all of them."""
    domains: dict[str, Level] = {}
    first: dict[str, Path] = {}
    lines: list[str] = []
    for path, data in contents:
        checked = check_file(data)
        problems = list(checked.problems)
        domain = checked.domain
        if domain in first:
            what = f"the domain {shown(domain)} is in {first[domain]} already"
            allowed = "a domain stands in one file"
            problems.append(
                Problem(DropInRule.DUPLICATE_DOMAIN, what, allowed, ("domain",), checked.line)
            )
        elif domain:
            first[domain] = path
            domains[domain] = checked.top
        problems.sort(key=lambda problem: problem.line)
        lines += [problem.render(str(path)) for problem in problems]
    if lines:
        raise DropInError(tuple(lines))
    return domains


def describe_dropin(domains: Domains) -> str:
    """What `headgate check` says of good files: each domain and how many limits it has."""
    return "\n".join(
        f"domain {domain}: {count} limit{'' if count == 1 else 's'}"
        for domain, count in ((domain, _limits(top)) for domain, top in domains.items())
    )


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder above it cannot be entered: reading it as a file tells why
        return False


def _limits(level: Level) -> int:
    nodes = [*level.exact.values(), *level.keys.values()]
    return sum((node.rate is not None) + _limits(node.below) for node in nodes)
