"""A real Prometheus for a test: its configuration, its process, its answers."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import httpx

from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port


@dataclass(frozen=True, slots=True)
class Target:
    """An address to scrape, and the labels that its metrics get.

    `relabelings` are Prometheus' metric_relabel_configs.
    """

    job: str
    url: str
    labels: Mapping[str, str]
    path: str = "/metrics"
    relabelings: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def ask(self, promql: str) -> list[dict[str, Any]]:
        """The samples of an instant query. AssertionError with Prometheus' text if it refuses."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": promql}).json()
        assert answer["status"] == "success", f"{answer.get('error')}: {promql}"
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def numbers(self, promql: str) -> list[float]:
        """The values of the samples that are numbers: NaN is none."""
        values = (float(sample["value"][1]) for sample in self.ask(promql))
        return [value for value in values if not isnan(value)]


@contextmanager
def running(
    folder: Path, targets: Sequence[Target], groups: Sequence[Mapping[str, Any]] = ()
) -> Iterator[Prometheus]:
    """Starts one that scrapes `targets` and evaluates the rules of `groups`, all in seconds.

    AssertionError if none is installed.
    """
    program = shutil.which("prometheus")
    assert program is not None, "this test needs prometheus on the PATH"
    config, rules = folder / "prometheus.yml", folder / "rules.yml"
    rules.write_text(json.dumps({"groups": list(groups)}))
    config.write_text(json.dumps(_config(targets, rules)))
    url = f"http://127.0.0.1:{free_port()}"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address={url.removeprefix('http://')}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: _ready(url), "prometheus to be ready")
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").is_success
    except httpx.HTTPError:
        return False


def _config(targets: Sequence[Target], rules: Path) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": f"{target.job}-{number}",
                "metrics_path": target.path,
                "metric_relabel_configs": target.relabelings,
                "static_configs": [
                    {
                        "targets": [target.url.removeprefix("http://")],
                        "labels": {"job": target.job, **target.labels},
                    }
                ],
            }
            for number, target in enumerate(targets)
        ],
    }
