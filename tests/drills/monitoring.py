"""A real Prometheus and a real Alertmanager, with the files that we ship."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML

from tests.drills.history import Target, write_history
from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port

_SHIPPED = Path(__file__).resolve().parents[2] / "examples" / "monitoring"


class MissingToolError(Exception):
    """A program that the drills need is not there."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The paths of the programs."""

    prometheus: str
    promtool: str
    alertmanager: str


def find_tools() -> Tools:
    """The programs on the PATH; Debian gives Alertmanager a longer name."""
    return Tools(
        _find("prometheus"),
        _find("promtool"),
        _find("alertmanager", "prometheus-alertmanager"),
    )


def _find(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise MissingToolError(f"make test-drills needs {names[0]} on the PATH")


@dataclass(frozen=True, slots=True)
class Monitoring:
    """A running Prometheus."""

    url: str

    def query(self, promql: str) -> list[tuple[Mapping[str, str], float]]:
        """The labels and values of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": promql}, timeout=10)
        result = answer.raise_for_status().json()["data"]["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]


@contextmanager
def running_monitoring(
    folder: Path, tools: Tools, targets: Sequence[tuple[str, Target]], pager_url: str
) -> Iterator[Monitoring]:
    """Prometheus with a past, and Alertmanager; `targets` are the jobs and what they showed."""
    manager, prometheus = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    data = folder / "prometheus"
    command = [sys.executable, str(_SHIPPED / "rules.py"), str(folder / "rules.yml")]
    subprocess.run(command, check=True)
    write_history(folder, data, tools.promtool, (target for _, target in targets))
    _write_alertmanager(folder / "alertmanager.yml", pager_url)
    _write_prometheus(folder / "prometheus.yml", manager, targets)
    alertmanager_command = [
        tools.alertmanager,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={manager}",
        "--cluster.listen-address=",
    ]
    prometheus_command = [
        tools.prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={prometheus}",
        "--storage.tsdb.retention.time=10d",
    ]
    with (
        _running(alertmanager_command, folder / "alertmanager.log", f"http://{manager}/-/ready"),
        _running(prometheus_command, folder / "prometheus.log", f"http://{prometheus}/-/ready"),
    ):
        yield Monitoring(f"http://{prometheus}")


def _write_alertmanager(file: Path, pager_url: str) -> None:
    config = YAML(typ="safe").load(_SHIPPED / "alertmanager.yml")
    for receiver, path in zip(config["receivers"], ("page", "ticket"), strict=False):
        receiver["webhook_configs"] = [{"url": f"{pager_url}/{path}"}]
    YAML().dump(config, file)


def _write_prometheus(file: Path, manager: str, targets: Sequence[tuple[str, Target]]) -> None:
    config = YAML(typ="safe").load(_SHIPPED / "prometheus.yml")
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [manager]}]
    shipped = {job["job_name"]: job for job in config["scrape_configs"]}
    for job in shipped.values():
        job["static_configs"] = []
    for name, target in targets:
        labels: dict[str, Any] = {
            key: value for key, value in target.labels.items() if key not in ("job", "instance")
        }
        entry = {"targets": [target.labels["instance"]], "labels": labels}
        shipped[name]["static_configs"].append(entry)
    YAML().dump(config, file)


@contextmanager
def _running(command: Sequence[str], log: Path, ready_url: str) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

    def is_ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"{command[0]} ended:\n{log.read_text()[-2000:]}")
        try:
            return httpx.get(ready_url, timeout=5).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_until(is_ready, ready_url)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
