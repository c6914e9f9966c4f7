"""Every locked runtime package has a wheel for every platform. `make wheels` writes the list."""

import re
import tomllib

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from release.locks import ONEBOX_LOCK, ROOT, read_lock
from release.wheels import PLATFORMS, WHEELS, Platform, read_wheels

LISTED = {digest: parse_wheel_filename(name) for digest, name in read_wheels().items()}


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_every_package_has_a_wheel_whose_digest_is_in_the_lock(platform: Platform) -> None:
    packages = platform.packages()
    missing = [
        locked.name
        for locked in packages
        if not any(
            name == canonicalize_name(locked.name)
            and str(version) == locked.version
            and platform.accepts(tags)
            for name, version, _, tags in (
                LISTED[digest] for digest in locked.sha256 if digest in LISTED
            )
        )
    ]

    assert len(packages) > 30
    assert missing == []


def test_the_platforms_are_those_that_the_package_claims() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    claimed = re.findall(r"Python :: 3\.(\d+)", "\n".join(classifiers))
    pairs = {(str(platform.minor), platform.machine) for platform in PLATFORMS}

    assert pairs == {(minor, machine) for minor in claimed for machine in ("x86_64", "aarch64")}
    assert sum("manylinux" in platform.tags[0] for platform in PLATFORMS) == len(pairs)


def test_the_list_holds_no_wheel_that_the_lock_does_not_know() -> None:
    locked = {digest for item in read_lock(ONEBOX_LOCK) for digest in item.sha256}

    assert set(LISTED) <= locked


def test_the_list_is_of_digests_and_file_names_alone() -> None:
    for line in WHEELS.read_text().splitlines():
        assert re.fullmatch(r"[0-9a-f]{64}  [\w.+-]+\.whl", line), line
