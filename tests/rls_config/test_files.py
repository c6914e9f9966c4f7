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
    dump_domains,
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
        f"{tmp_path}/other: the directory has no configuration file; add at least one file"
    ]
    assert problems(tmp_path / "gone.yaml") == [
        f"{tmp_path}/gone.yaml: cannot be read (No such file or directory); a configuration file"
        " is a readable file of at most 33554432 bytes"
    ]


def test_a_directory_gives_all_its_files_but_hidden_ones(tmp_path: Path) -> None:
    deeper, hidden = tmp_path / "deeper", tmp_path / "..2026_11_27"
    for folder in (deeper, hidden):
        folder.mkdir()
    names = ("b.yaml", "a.yml", ".hidden.yaml", "limits", "old.yaml~", "deeper/d.conf")
    for name in (*names, "deeper/.hidden", "..2026_11_27/e.yaml"):
        (tmp_path / name).write_text("")
    seen = ("a.yml", "b.yaml", "deeper/d.conf", "limits", "old.yaml~")
    assert config_files((tmp_path,)) == tuple(tmp_path / name for name in seen)


def test_no_file_counts_twice(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "c.yaml"):
        (tmp_path / name).write_text("")
    a, b, c = (tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml"))
    assert config_files((c, tmp_path, b)) == (c, a, b)


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "shop.yaml").write_text("domain: shop\n")
    (tmp_path / "config" / "current").symlink_to("../v1")
    (tmp_path / "v1" / "all").symlink_to("../config")
    shop = tmp_path / "config" / "current" / "shop.yaml"
    assert config_files((tmp_path / "config",)) == (shop,)
    assert list(load_domains((tmp_path / "config",))) == ["shop"]


def test_a_file_that_is_no_configuration_is_reported_with_the_reason_why_it_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "shop.yaml").write_text("domain: shop\n")
    notes = tmp_path / "README.md"
    notes.write_text("# Limits\nAsk the platform team.\n")
    assert problems(tmp_path) == [
        f'{notes}:2: the file is not a mapping (value "Ask the platform team."); a configuration'
        " file is a mapping with the keys domain and descriptors (every file of a folder is read,"
        " except those whose names begin with a dot)"
    ]


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


def test_metadata_may_hold_any_values() -> None:
    values = (
        "{service: {name: a, weight: 10}, on: yes, none: ~, text: 'yes', list: [1.5, -0x10, .inf],"
        " day: 2026-11-27, octal: 010, large: 1_000, empty: {}, <<: {service: b, region: eu}}"
    )
    read = rate(f"{{key: k, metadata: {values}, rate_limit: {{unit: day}}}}")
    assert read.metadata == {
        "service": {"name": "a", "weight": 10},
        "on": True,
        "none": None,
        "text": "yes",
        "list": [1.5, -16, float("inf")],
        "day": "2026-11-27",
        "octal": 8,
        "large": 1000,
        "empty": {},
        "region": "eu",
    }


ENVOY_GATEWAY = """
name: shop/policy
domain: shop/policy
descriptors:
  - key: route
    value: route
    rate_limit: null
    descriptors:
      - key: rule-0-match-0
        value: ""
        rate_limit: {requests_per_unit: 5, unit: SECOND, unlimited: false, name: "", replaces: []}
        descriptors: []
        shadow_mode: false
        quota_mode: false
        detailed_metric: false
        value_to_metric: false
        share_threshold: false
"""


def test_the_output_of_envoy_gateway_is_read() -> None:
    top = domains(ENVOY_GATEWAY)["shop/policy"]
    met = meet(top, (("route", "route"), ("rule-0-match-0", "x")))
    assert met is not None
    assert met.rate == Rate(id="route_route.rule-0-match-0", limit=5, per=Per.SECOND)


def test_limits_are_dumped_in_the_form_of_envoyproxy_ratelimit() -> None:
    text = (
        "domain: a\ndescriptors:\n- {key: b, value: c*, rate_limit: {unit: day}}\n- key: d\n"
        "  descriptors:\n  - key: e\n    quota_mode: true\n    shadow_mode: true\n"
        "    rate_limit: {unit: minute, requests_per_unit: 7}\n"
        "- {key: f, rate_limit: {unlimited: true}}\n"
    )
    assert dump_domains(domains(text)).splitlines() == [
        "a.b_c*: unit=DAY requests_per_unit=0, shadow_mode: false, quota_mode: false",
        "a.d.e: unit=MINUTE requests_per_unit=7, shadow_mode: true, quota_mode: true",
        "a.f: unit=UNKNOWN requests_per_unit=0, shadow_mode: false, quota_mode: false",
    ]


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
