"""Configuration files: good values are read as meant, each mistake is reported in its own line."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headgate.core.policy import Per
from headgate.rls_config import (
    RlsConfigError,
    config_files,
    describe_domains,
    load_domains,
    parse_domains,
)
from headgate.rls_config.check import check_file
from headgate.rls_config.rules import RlsConfigRule
from ratelimit.descriptors.tree import Rate, meet
from tests.rls_config.builders import domains

BAD = sorted(Path(__file__).with_name("bad").glob("*.yaml"))
EXPECT = b"# expect: FILE"
OF_SEVERAL_FILES = {RlsConfigRule.DUPLICATE_DOMAIN, RlsConfigRule.EMPTY_DIRECTORY}


def expected(path: Path) -> list[str]:
    lines = path.read_bytes().splitlines()
    return [
        f"{path}{line.removeprefix(EXPECT).decode()}" for line in lines if line.startswith(EXPECT)
    ]


def problems(*paths: Path) -> list[str]:
    with pytest.raises(RlsConfigError) as caught:
        load_domains(paths)
    return list(caught.value.problems)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_is_reported_in_exactly_these_lines(path: Path) -> None:
    reported = problems(path)
    assert expected(path) == reported
    assert all(line.isprintable() for line in reported)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_file_is_named_after_the_rule_that_it_breaks(path: Path) -> None:
    named = path.stem.partition("-")[0]
    rules = {problem.rule.value for problem in check_file(path.read_bytes()).problems}
    assert named == "many" or {named} == rules


def test_every_rule_has_a_file_that_breaks_it() -> None:
    broken = {problem.rule for path in BAD for problem in check_file(path.read_bytes()).problems}
    assert set(RlsConfigRule) - OF_SEVERAL_FILES == broken & set(RlsConfigRule)


def test_a_domain_is_defined_in_one_file(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("# a comment\ndomain: shop\n")
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert problems(tmp_path) == [
        f'{second}:2: domain: the domain "shop" is already defined in {first};'
        " define each domain in one file"
    ]


def test_the_mistakes_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "other").mkdir()
    assert [line.partition(": ")[0] for line in problems(tmp_path)] == [
        f"{tmp_path}/a.yaml:1",
        f"{tmp_path}/b.yaml:1",
    ]
    assert problems(tmp_path / "other") == [
        f"{tmp_path}/other: the directory has no configuration file; add at least one *.yaml file"
    ]
    assert problems(tmp_path / "gone.yaml") == [
        f"{tmp_path}/gone.yaml: cannot be read (No such file or directory); a configuration file"
        " is a readable file of at most 33554432 bytes"
    ]


def test_a_directory_gives_its_yaml_files_and_no_file_counts_twice(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", ".hidden.yaml", "notes.txt", "old.yaml~", "c.yml"):
        (tmp_path / name).write_text("")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.yaml").write_text("")
    a, b, c = (tmp_path / name for name in ("a.yaml", "b.yaml", "c.yml"))
    assert config_files((c, tmp_path, b)) == (c, a, b)


def rate(text: str) -> Rate:
    met = meet(domains(f"domain: shop\ndescriptors:\n- {text}")["shop"], (("k", "v"),))
    assert met is not None
    return met.rate


def test_a_rate_limit_is_read_with_all_that_it_says() -> None:
    text = (
        "{key: k, value: v, shadow_mode: true, quota_mode: yes, detailed_metric: true,"
        " value_to_metric: on, rate_limit: {unit: Week, requests_per_unit: 1_000, name: n,"
        " replaces: [{name: a}, {name: b}]}}"
    )
    assert rate(text) == Rate(
        id="k_v",
        limit=1000,
        per=Per.WEEK,
        name="n",
        replaces=frozenset(("a", "b")),
        shadow=True,
        quota=True,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{key: k, rate_limit: {unit: day}}", Rate(id="k", limit=0, per=Per.DAY)),
        ("{key: k, rate_limit: {unlimited: true}}", Rate(id="k", limit=0, per=None)),
        (
            "{key: k, rate_limit: {unlimited: true, requests_per_unit: 5}}",
            Rate(id="k", limit=5, per=None),
        ),
        (
            "{key: k, value: , shadow_mode: ~, descriptors: , rate_limit: {unit: day, name: }}",
            Rate(id="k", limit=0, per=Per.DAY),
        ),
        ("{<<: {rate_limit: {unit: day}, key: x}, key: k}", Rate(id="k", limit=0, per=Per.DAY)),
        (
            "{key: k, <<: [{rate_limit: {unit: day}}, {value: v}]}",
            Rate(id="k_v", limit=0, per=Per.DAY),
        ),
    ],
)
def test_absent_values_are_zero_or_nothing(text: str, expected: Rate) -> None:
    assert rate(text) == expected


def test_an_anchor_may_be_used_again() -> None:
    text = "domain: a\ndescriptors:\n- key: b\n  rate_limit: &r {unit: day}\n"
    top = domains(text + "- key: c\n  rate_limit: *r\n")["a"]
    assert [meet(top, ((key, ""),)) is not None for key in "bc"] == [True, True]


def test_good_files_are_described() -> None:
    text = (
        "domain: a\ndescriptors:\n- key: b\n  rate_limit: {unit: day}\n  descriptors:\n"
        "  - {key: c, value: d*, rate_limit: {unit: day}}\n"
    )
    assert describe_domains(domains(text)) == "domain a: 2 limits"


def is_reported_or_read(data: bytes) -> None:
    try:
        parse_domains(((Path("x.yaml"), data),))
    except RlsConfigError as error:
        reported = len(error.problems)
    else:
        reported = 0
    assert reported == len(check_file(data).problems)


@given(st.binary(max_size=300))
@example(b"domain: a\ndescriptors:\n- key: \x00")
@example(b"domain: a\n<<: 5\n<<: {}\n")
def test_no_bytes_bring_it_down(data: bytes) -> None:
    is_reported_or_read(data)


words = st.sampled_from(
    ["domain", "descriptors", "key", "value", "rate_limit", "unit", "day", "<<", "a*", "1", "true"]
)
values = st.recursive(
    words | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_no_structure_brings_it_down(value: object) -> None:
    is_reported_or_read(repr(value).replace("None", "null").replace("'", "").encode())
