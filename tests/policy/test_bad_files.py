"""Each file in `bad/` contains a mistake and, in comments, the exact lines that report it."""

from pathlib import Path

import pytest

from headgate.policy import PolicyError, load_policy
from headgate.policy.load import find_problems
from headgate.policy.problems import PolicyRule
from tests.policy.policies import problems_of

BAD = sorted(Path(__file__).with_name("bad").glob("*.yaml"))
EXPECT = b"# expect: FILE"
FILE_RULES = {PolicyRule.UNREADABLE, PolicyRule.TOO_BIG}
"""Rules about a file that no file in `bad/` can break; see test_load.py."""


def expected(path: Path) -> list[str]:
    lines = path.read_bytes().splitlines()
    return [
        f"{path}{line.removeprefix(EXPECT).decode()}" for line in lines if line.startswith(EXPECT)
    ]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_is_reported_in_exactly_these_lines(path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(path)

    assert expected(path) == list(caught.value.problems)
    assert expected(path) == problems_of(path)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_file_is_named_after_the_rule_that_it_breaks(path: Path) -> None:
    _, problems = find_problems(path.read_bytes())

    named = path.stem.partition("-")[0]
    assert named == "many" or named in {problem.rule.value for problem in problems}


def test_every_rule_has_a_file_that_breaks_it() -> None:
    broken = {problem.rule for path in BAD for problem in find_problems(path.read_bytes())[1]}

    assert set(PolicyRule) - FILE_RULES == broken


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_message_is_one_line_and_contains_no_secret(path: Path) -> None:
    for line in problems_of(path):
        assert line.isprintable()
        assert "3f9c2d41a7" not in line
        assert "hunter2" not in line
