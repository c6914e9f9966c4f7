"""Models: their versions and weights, and the state of each pod as vLLM reports it."""

from collections.abc import Mapping, Sequence
from typing import Any

from headgate.console.pods import Pod, pods_at
from headgate.console.visit import View, Visit
from headgate.core.policy import Model


async def show(visit: Visit) -> View:
    """The models that the reader's tenants may use. Each pod is asked while the page waits."""
    seen = {one for name in visit.tenants for one in visit.policy.tenants[name].usable}
    models = [one for name, one in sorted(visit.policy.models.items()) if name in seen]
    bases = {one.base for one in models}
    runners = [one for name, one in sorted(visit.policy.models.items()) if name in bases]
    urls = [url for one in runners for _, _, url in versions_of(one)]
    pods = await pods_at(urls, visit.surroundings.authorities)
    values: dict[str, Any] = {
        "models": [(one, _prices(visit, one), _tenants(visit, one)) for one in models],
        "runners": [
            (one, [(name, weight, url, pods[url]) for name, weight, url in versions_of(one)])
            for one in runners
        ],
        **_numbers(pods),
    }
    return View("models.html", values)


def versions_of(model: Model) -> list[tuple[str, int, str]]:
    """The versions of a base model: name, weight in per cent, URL. One without has a single row."""
    if model.versions is None:
        return [("", 100, model.upstream)]
    return [(one.name, one.weight, one.upstream) for one in model.versions.all]


def _prices(visit: Visit, model: Model) -> Mapping[str, str]:
    """The prices in force, by kind of token, for a million of them."""
    return model.prices.at(visit.desk.clock.now_s()).prices.by_kind()


def _tenants(visit: Visit, model: Model) -> Sequence[str]:
    return [name for name in visit.tenants if model.name in visit.policy.tenants[name].usable]


def _numbers(pods: Mapping[str, Sequence[Pod]]) -> dict[str, Any]:
    every = [pod for found in pods.values() for pod in found]
    return {
        "all_pods": every,
        "silent": [pod for pod in every if pod.problem],
        "running": sum(pod.running or 0 for pod in every),
        "waiting": sum(pod.waiting or 0 for pod in every),
    }
