"""The reconciler with simulated pods: load, update, unload, restarts, errors and leaders."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from headgate.adapters.plan.values import GRACE_S, LONGEST_S
from headgate.adapters.reconcile.act import PodActions
from headgate.adapters.reconcile.cleaning import Cleaner
from headgate.adapters.reconcile.hosts import PodHosts
from headgate.adapters.reconcile.look import PodLooker
from headgate.database.address import DatabaseAddress
from tests.adapters.files import CONFIG, write_adapter
from tests.adapters.rig import Rig, eventually, listed, running_rig
from tests.identity.builders import BY, until
from tests.ports import free_port
from tests.simulator_process import simulator_process


@asynccontextmanager
async def rig_of(address: DatabaseAddress, folder: Path, pods: int) -> AsyncIterator[tuple]:
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(simulator_process())).url for _ in range(pods)]
        yield await stack.enter_async_context(running_rig(address, folder, urls)), urls


def open_on(rig: Rig, version: str) -> int:
    return len(rig.registry.pods_of(version))


async def test_a_registered_version_is_loaded_on_its_copies_and_replicas_learn_where(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    async with rig_of(address, tmp_path, 2) as (rig, pods), rig.reconciler():
        await rig.register()
        await until(lambda: open_on(rig, "acme-sql@1") == 2)
        for pod in pods:
            assert await listed(pod) == {"acme-sql@1": f"{tmp_path}/pod/acme-sql@1"}
        assert {place.step for place in await rig.places()} == {"loaded"}
        assert set(rig.registry.pods_of("acme-sql@1")) == {pod[len("http://") :] for pod in pods}


async def test_an_update_moves_the_weight_once_the_new_version_is_loaded(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    async with rig_of(address, tmp_path, 1) as (rig, [pod]), rig.reconciler():
        await rig.register(copies=1)
        await until(lambda: open_on(rig, "acme-sql@1"))
        await rig.register(copies=1, source="acme/sql-8")
        await until(lambda: open_on(rig, "acme-sql@2"))
        await rig.store.edit("acme-sql", rig.policy, BY, weights={2: 100})
        await rig.store.withdraw("acme-sql", 1, BY)
        await until(lambda: not open_on(rig, "acme-sql@1"))
        assert "acme-sql@1" in await listed(pod)  # for the requests that replicas let in just now
        rig.clock.shift_s += GRACE_S + 1
        await eventually(lambda: _lacks(pod, "acme-sql@1"))
        assert "acme-sql@1" in rig.kept


async def _lacks(pod: str, version: str) -> bool:
    return version not in await listed(pod)


async def test_a_restarted_pod_gets_its_adapters_back(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with running_rig(address, tmp_path, [url]) as rig, rig.reconciler():
        await rig.register(copies=1)
        for _ in range(2):
            async with simulator_process("--port", str(port)):
                await eventually(lambda: _has(url, "acme-sql@1"))
                await until(lambda: open_on(rig, "acme-sql@1"))
            await until(lambda: not open_on(rig, "acme-sql@1"))


async def _has(pod: str, version: str) -> bool:
    try:
        return version in await listed(pod)
    except httpx.HTTPError:
        return False


async def test_files_that_do_not_fit_are_told_by_pod_and_never_reach_vllm(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    async with rig_of(address, tmp_path, 2) as (rig, pods), rig.reconciler() as metrics:
        other = {**CONFIG, "base_model_name_or_path": "org/other"}
        write_adapter(tmp_path / "sources" / "other", other)
        await rig.register(source="other", copies=1)

        async def failed() -> bool:
            return any(place.is_permanent for place in await rig.places())

        await eventually(failed)
        [place] = await rig.places()
        assert place.step == "failed"
        assert "trained on org/other, not on org/tiny" in place.error
        await asyncio.sleep(3)  # several rounds, in which nothing must be tried again
        assert metrics.of_adapters.loads.labels("failed")._value.get() == 1
        assert [await listed(pod) for pod in pods] == [{}, {}]


async def test_of_two_replicas_one_leads_and_the_other_takes_over(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    async with rig_of(address, tmp_path, 1) as (rig, _):
        async with rig.reconciler() as first:
            await until(lambda: first.of_adapters.leads._value.get() == 1)
            async with rig.reconciler() as second:
                await rig.register(copies=1)
                await until(lambda: open_on(rig, "acme-sql@1"))
                assert second.of_adapters.leads._value.get() == 0
        async with rig.reconciler() as third:
            await until(lambda: third.of_adapters.leads._value.get() == 1)


async def test_a_base_model_takes_no_place_on_the_pods_of_another(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    async with rig_of(address, tmp_path, 2) as (rig, [own, others]):
        pool = rig.policy.models["tiny"].adapter_pool
        assert pool is not None
        pools = {
            name: replace(pool, pods=(pod.removeprefix("http://"),))
            for name, pod in (("other", others), ("tiny", own))
        }
        models = {
            name: replace(rig.policy.models["tiny"], name=name, base=name, adapter_pool=one)
            for name, one in pools.items()
        }
        rig.policy = replace(rig.policy, models={**rig.policy.models, **models})
        async with rig.reconciler():
            await rig.register(copies=2)
            await until(lambda: open_on(rig, "acme-sql@1"))
            assert {place.pod for place in await rig.places()} == set(pools["tiny"].pods)


async def test_files_are_deleted_only_when_no_pod_lists_them_and_none_needs_them(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    async with (
        rig_of(address, tmp_path, 1) as (rig, [pod]),
        httpx.AsyncClient(trust_env=False) as http,
    ):
        actions, pool = PodActions(http), rig.policy.models["tiny"].adapter_pool
        cleaner, looker = Cleaner(actions), PodLooker(http, rig.clock, PodHosts())
        for name in ("sql@1", "law@1"):
            write_adapter(tmp_path / "pod" / name)
        body = {"lora_name": "sql@1", "lora_path": f"{tmp_path}/pod/sql@1"}
        await http.post(f"{pod}/v1/load_lora_adapter", json=body)
        now_s = rig.clock.now_s() + LONGEST_S
        [seen] = await looker.look(pool.pods)

        await cleaner.clean(seen, pool, ({}, ()), now_s)
        assert rig.kept == ["sql@1"]
        refused = await http.delete(f"http://127.0.0.1:{pool.agent_port}/versions/sql@1")
        assert (refused.status_code, refused.json()) == (409, {"error": "vLLM lists it"})
        assert rig.kept == ["sql@1"]


async def test_files_stay_while_vllm_does_not_say_what_it_needs(
    address: DatabaseAddress, tmp_path: Path
) -> None:
    """A listed adapter without files would end the process that cannot be asked now."""
    url = f"http://127.0.0.1:{free_port()}"
    async with (
        running_rig(address, tmp_path, [url]) as rig,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        pool = rig.policy.models["tiny"].adapter_pool
        write_adapter(tmp_path / "pod" / "sql@1")
        refused = await http.delete(f"http://127.0.0.1:{pool.agent_port}/versions/sql@1")
        assert refused.status_code == 409
        assert rig.kept == ["sql@1"]
