"""Loads the domains in force from files and directories: the only way in, for serve and reload."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from headgate.policy.load import read_file
from headgate.policy.problems import FileError, PolicyRule, Problem, shown
from headgate.rls_config.check import FILE_KIND, check_file
from headgate.rls_config.rules import RlsConfigRule
from ratelimit.descriptors.tree import DescriptorLevel, Domains, Rate

_SUFFIXES = frozenset((".yaml", ".yml", ".json"))
_NO_CONFIGURATION = frozenset(
    (
        PolicyRule.NOT_UTF8,
        PolicyRule.SYNTAX,
        PolicyRule.EMPTY_FILE,
        PolicyRule.NOT_MAPPING,
        RlsConfigRule.MISSING_DOMAIN,
    )
)

Contents: TypeAlias = tuple[tuple[Path, bytes], ...]


class RlsConfigError(FileError):
    """Configuration of envoyproxy/ratelimit with mistakes, or that cannot be read."""


def load_domains(paths: tuple[Path, ...]) -> Domains:
    """Reads, checks and compiles everything. Raises RlsConfigError with every mistake."""
    return parse_domains(tuple((path, read_config(path)) for path in config_files(paths)))


def config_files(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files at `paths`. A directory gives all its files and those of its folders, by name.

    As with envoyproxy/ratelimit the name of a file means nothing, except that files and folders
    whose names begin with a dot are left out. A file behind two names is read once.
    Raises RlsConfigError for a directory without any: every call would go without limits.
    """
    files: list[Path] = []
    problems = []
    for path in paths:
        if not _is_directory(path):
            files.append(path)
            continue
        try:
            inside = sorted(_files_below(path, frozenset()))
        except OSError as error:
            problems.append(_unreadable(error))
            continue
        if not inside:
            rule, fault = RlsConfigRule.EMPTY_DIRECTORY, "the directory has no configuration file"
            problem = Problem(rule=rule, fault=fault, advice="add at least one file")
            problems.append(problem.render(str(path)))
        files += inside
    if problems:
        raise RlsConfigError(tuple(problems))
    by_place: dict[str, Path] = {}
    for file in files:
        by_place.setdefault(os.path.realpath(file), file)
    return tuple(by_place.values())


def _files_below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """All files below the folder. Links to folders are followed, but never in a circle."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if _is_directory(entry):
            yield from _files_below(entry, above | {here})
        else:
            yield entry


def _unreadable(error: OSError) -> str:
    fault = f"cannot be read ({error.strerror})"
    advice = "a folder of the configuration must be readable"
    return Problem(rule=PolicyRule.UNREADABLE, fault=fault, advice=advice).render(error.filename)


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
        problems = [_explained(path, problem) for problem in checked.problems]
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


def _explained(path: Path, problem: Problem) -> Problem:
    """The problem, with the reason why such a file is read at all if it is no configuration."""
    if path.suffix in _SUFFIXES or problem.rule not in _NO_CONFIGURATION:
        return problem
    why = "every file of a folder is read, except those whose names begin with a dot"
    return replace(problem, advice=f"{problem.advice} ({why})")


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
        for domain, count in ((domain, len([*_rates(top)])) for domain, top in domains.items())
    )


def dump_domains(domains: Domains) -> str:
    """Each limit as a line, in the form of the page /rlconfig of envoyproxy/ratelimit."""
    return "".join(
        f"{domain}.{rate.id}: unit={rate.per.name if rate.per else 'UNKNOWN'}"
        f" requests_per_unit={rate.limit}, shadow_mode: {str(rate.shadow).lower()},"
        f" quota_mode: {str(rate.quota).lower()}\n"
        for domain, top in domains.items()
        for rate in _rates(top)
    )


def _rates(level: DescriptorLevel) -> Iterator[Rate]:
    for node in (*level.exact.values(), *level.keys.values()):
        if node.rate is not None:
            yield node.rate
        yield from _rates(node.below)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a folder above it cannot be entered: reading it as a file reports why
        return False
