"""The loop of the leader: look, plan, publish, act. Every replica runs it, and one of them leads.

The leader is the one that holds a lock of PostgreSQL, on the connection by which it reads and
writes. Without that connection it does nothing.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import httpx

from headgate.adapters.plan.planner import plan
from headgate.adapters.plan.values import Known, Plan, Pool, Spot, Wanted
from headgate.adapters.reconcile.act import PodActions
from headgate.adapters.reconcile.cleaning import Cleaner
from headgate.adapters.reconcile.errands import Errands
from headgate.adapters.reconcile.hosts import PodHosts
from headgate.adapters.reconcile.look import PodLooker
from headgate.adapters.reconcile.state import LeaderState, PlaceState
from headgate.core.adapter_metrics import STEPS, AdapterMetrics
from headgate.core.adapter_pools import AdapterPool
from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import DEADLINE_S, Connection, first_line, within

ROUND_S = 1.0
LONGEST_ROUND_S = 30.0
CLEAN_S = 60.0

log = logging.getLogger("headgate.adapters")

Places = Mapping[Spot, PlaceState]


class Reconciler:
    """Keeps the pods of all base models as they shall be, as an asynchronous context manager."""

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Connection]],
        policy: Callable[[], CompiledPolicy],
        clock: Clock,
        metrics: AdapterMetrics,
    ) -> None:
        self._connect = connect
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._hosts = PodHosts()
        hooks = {"request": [self._hosts.name]}
        self._http = httpx.AsyncClient(trust_env=False, event_hooks=hooks)
        self._actions = PodActions(self._http)
        self._task = BackgroundTask(
            "reconciler of adapters", self._try_to_lead, ROUND_S, log, at_once=True
        )

    async def __aenter__(self) -> Self:
        self._task.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._task.stop()
        await self._http.aclose()

    async def _try_to_lead(self) -> None:
        """Leads until something fails: the next try may not."""
        try:
            async with self._connect() as connection:
                await self._lead(LeaderState(connection), connection)
        except Exception as error:
            log.warning("adapters are not reconciled here now: %s", first_line(error))
        finally:
            self._metrics.leads.set(0)

    async def _lead(self, state: LeaderState, connection: Connection) -> None:
        if not await within(DEADLINE_S, connection, state.leads()):
            return
        self._metrics.leads.set(1)
        errands = Errands(self._actions, self._clock, self._metrics)
        leader = _Leader(state, errands, self._new_looker, self._actions)
        cleaned_s = self._clock.monotonic_s()
        try:
            while True:
                errands.ended.clear()
                policy, now_s = self._policy(), self._clock.now_s()
                work = leader.round(policy, now_s)
                places = await within(LONGEST_ROUND_S, connection, work)
                self._count(places)
                if self._clock.monotonic_s() - cleaned_s >= CLEAN_S:
                    await leader.clean(policy, now_s)
                    cleaned_s = self._clock.monotonic_s()
                await _pause(errands.ended)
        finally:
            await errands.stop()

    def _new_looker(self) -> PodLooker:
        return PodLooker(self._http, self._clock, self._hosts)

    def _count(self, places: Places) -> None:
        for step in STEPS:
            number = sum(state.step == step for state in places.values())
            self._metrics.places.labels(step).set(number)


class _Leader:
    """The rounds of one time of leading."""

    def __init__(
        self,
        state: LeaderState,
        errands: Errands,
        new_looker: Callable[[], PodLooker],
        actions: PodActions,
    ) -> None:
        self._state = state
        self._errands = errands
        self._lookers: dict[str, PodLooker] = defaultdict(new_looker)
        self._cleaner = Cleaner(actions)
        self._seen: dict[str, Pool] = {}

    async def round(self, policy: CompiledPolicy, now_s: float) -> Places:
        """One round over all base models. It writes the open places before any action begins."""
        old = await self._state.places()
        registered = await self._state.registered()
        wanted = await self._state.wanted(registered)
        pools = pools_of(policy)
        plans: dict[str, Plan] = {}
        for base, pool in pools.items():
            own = [wanted[name] for name, one in registered.items() if one.base == base]
            plans[base] = await self._plan(base, pool, old, own, now_s)
        new: dict[Spot, PlaceState] = {}
        for one in plans.values():
            new |= self._states(one, old, wanted)
        await self._state.write(old, new, now_s)
        for base, one in plans.items():
            for action in one.actions:
                self._errands.start(action, registered, pools[base])
        return new

    async def clean(self, policy: CompiledPolicy, now_s: float) -> None:
        """Has the agents delete what nobody needs, and forgets old counts."""
        wanted = await self._state.wanted(await self._state.registered())
        old = await self._state.places()
        for base, pool in pools_of(policy).items():
            known = wanted, old.keys()
            pods = self._seen[base].pods
            await asyncio.gather(*(self._cleaner.clean(pod, pool, known, now_s) for pod in pods))
        await self._state.forget(now_s)

    async def _plan(
        self,
        base: str,
        pool: AdapterPool,
        old: Places,
        wanted: Sequence[Wanted],
        now_s: float,
    ) -> Plan:
        pods = await self._lookers[base].look(pool.pods)
        seen = self._seen[base] = Pool(live=pool.live, listed=pool.listed, pods=pods)
        known = Known(
            places=frozenset(spot for spot, state in old.items() if state.step != "failed"),
            failed=frozenset(spot.version for spot, state in old.items() if state.is_permanent),
            delayed=self._errands.delayed(),
        )
        roots = {one.version: f"{pool.folder}/{one.version}" for one in wanted}
        return plan(wanted, seen, known, roots, now_s)

    def _states(self, one: Plan, old: Places, wanted: Mapping[str, Wanted]) -> Places:
        """The rows of a plan, and those of failed loads whose version was not withdrawn."""
        states = {
            spot: state
            for spot, state in old.items()
            if state.is_permanent and spot.version in wanted and wanted[spot.version].copies
        }
        for spot in one.places:
            error, is_permanent = self._errands.error_of(spot)
            if spot in one.open:
                self._errands.forget(spot)
                states[spot] = PlaceState(step="loaded", is_open=True)
            elif is_permanent:
                states[spot] = PlaceState(step="failed", error=error, is_permanent=True)
            else:
                step = self._errands.step_of(spot) or "waiting"
                states[spot] = PlaceState(step=step, error=error)
        return states


def pools_of(policy: CompiledPolicy) -> Mapping[str, AdapterPool]:
    """The pool of each base model that has one."""
    return {
        name: model.adapter_pool
        for name, model in policy.models.items()
        if model.adapter_pool is not None and model.base == name
    }


async def _pause(ended: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(ROUND_S):
            await ended.wait()
    except TimeoutError:
        pass
