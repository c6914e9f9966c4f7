"""Loads the domains in force from files and directories: the only way in, for serve and reload."""

from pathlib import Path
from typing import TypeAlias

from headgate.policy.load import read_file
from headgate.policy.problems import FileError, Problem, shown
from headgate.rls_config.check import FILE_KIND, check_file
from headgate.rls_config.rules import RlsConfigRule
from ratelimit.descriptors.tree import DescriptorLevel, Domains

Contents: TypeAlias = tuple[tuple[Path, bytes], ...]


class RlsConfigError(FileError):
    """Configuration of envoyproxy/ratelimit with mistakes, or that cannot be read."""


def load_domains(paths: tuple[Path, ...]) -> Domains:
    """Reads, checks and compiles everything. Raises RlsConfigError with every mistake."""
    return parse_domains(tuple((path, read_config(path)) for path in config_files(paths)))


def config_files(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files at `paths`. A directory gives its `*.yaml`, sorted by name, without hidden files.

    Raises RlsConfigError for a directory without any: every call would go without limits.
    """
    files: list[Path] = []
    problems = []
    for path in paths:
        if not _is_directory(path):
            files.append(path)
            continue
        inside = sorted(file for file in path.glob("*.yaml") if not file.name.startswith("."))
        if not inside:
            rule, fault = RlsConfigRule.EMPTY_DIRECTORY, "the directory has no configuration file"
            problem = Problem(rule=rule, fault=fault, advice="add at least one *.yaml file")
            problems.append(problem.render(str(path)))
        files += inside
    if problems:
        raise RlsConfigError(tuple(problems))
    return tuple(dict.fromkeys(files))


def read_config(path: Path) -> bytes:
    """The bytes of one file. Raises RlsConfigError when it cannot be read or is too big."""
    return read_file(path, FILE_KIND, RlsConfigError)


def parse_domains(contents: Contents) -> Domains:
    """Checks and compiles the files. Raises RlsConfigError with every mistake of all of them."""
    domains: dict[str, DescriptorLevel] = {}
    first: dict[str, Path] = {}
    lines: list[str] = []
    for path, data in contents:
        checked = check_file(data)
        problems = list(checked.problems)
        domain = checked.domain
        if domain in first:
            problems.append(_duplicate(domain, first[domain], checked.line))
        elif domain:
            first[domain] = path
            domains[domain] = checked.top
        problems.sort(key=lambda problem: problem.line)
        lines += [problem.render(str(path)) for problem in problems]
    if lines:
        raise RlsConfigError(tuple(lines))
    return domains


def _duplicate(domain: str, first: Path, line: int) -> Problem:
    return Problem(
        rule=RlsConfigRule.DUPLICATE_DOMAIN,
        fault=f"the domain {shown(domain)} is already defined in {first}",
        advice="define each domain in one file",
        path=("domain",),
        line=line,
    )


def describe_domains(domains: Domains) -> str:
    """The summary that `headgate check` prints: each domain and the number of its limits."""
    return "\n".join(
        f"domain {domain}: {count} limit{'' if count == 1 else 's'}"
        for domain, count in ((domain, _limits(top)) for domain, top in domains.items())
    )


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder above it cannot be entered: reading it as a file reports why
        return False


def _limits(level: DescriptorLevel) -> int:
    nodes = [*level.exact.values(), *level.keys.values()]
    return sum((node.rate is not None) + _limits(node.below) for node in nodes)
