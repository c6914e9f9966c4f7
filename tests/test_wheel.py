"""The wheel holds our five packages and nothing else, and is never uploaded."""

from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

import headgate

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    folder = tmp_path_factory.mktemp("dist")
    [path] = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with ZipFile(path) as file:
        yield file


def test_the_wheel_holds_five_top_level_packages(wheel: ZipFile) -> None:
    names = {name.partition("/")[0] for name in wheel.namelist()}

    assert {name for name in names if not name.endswith(".dist-info")} == {
        "accesslog",
        "extauthz",
        "extproc",
        "headgate",
        "ratelimit",
    }


@pytest.mark.parametrize("suffix", [".lua", ".typed"])
def test_the_wheel_holds_every_data_file_of_the_packages(wheel: ZipFile, suffix: str) -> None:
    packages = ("accesslog", "extauthz", "extproc", "headgate", "ratelimit")
    files = {
        str(path.relative_to(ROOT))
        for name in packages
        for path in (ROOT / name).rglob(f"*{suffix}")
    }
    assert files <= set(wheel.namelist())


def test_the_metadata_forbid_an_upload_and_name_the_version(wheel: ZipFile) -> None:
    folder = f"headgate-{headgate.__version__}.dist-info"
    metadata = message_from_bytes(wheel.read(f"{folder}/METADATA"))

    assert "Private :: Do Not Upload" in metadata.get_all("Classifier", [])
    assert metadata["Version"] == headgate.__version__


def test_the_command_checks_the_packages_before_it_imports_them(wheel: ZipFile) -> None:
    folder = f"headgate-{headgate.__version__}.dist-info"

    assert "headgate = headgate.__main__:main" in wheel.read(f"{folder}/entry_points.txt").decode()
