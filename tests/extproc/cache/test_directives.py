"""The `cache-control` of a request."""

import pytest

from extproc.cache.directives import Directives, directives_of


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Directives()),
        ("no-store", Directives(keeps_out=True)),
        ("No-Store, max-age=5", Directives(keeps_out=True, max_age_s=5)),
        ("no-cache", Directives(max_age_s=0)),
        ("max-age=60", Directives(max_age_s=60)),
        ('max-age="60"', Directives(max_age_s=60)),
        ("max-age=60, max-age=5", Directives(max_age_s=5)),
        ("no-cache,max-age=60", Directives(max_age_s=0)),
        ("max-age", Directives(max_age_s=0)),
        ("max-age=-1", Directives(max_age_s=0)),
        ("max-age=\u0661", Directives(max_age_s=0)),
        ("max-age=99999999999999999999", Directives(max_age_s=2**31)),
        ("only-if-cached, min-fresh=5, ,=", Directives()),
    ],
)
def test_the_header_bounds_the_use_of_the_cache(header: str, expected: Directives) -> None:
    assert directives_of(header) == expected
