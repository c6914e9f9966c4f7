"""Has agents delete the files of versions that no pod lists and no request waits for.

A request for a listed adapter whose files are gone ends vLLM's process. So does one that still
waits for an adapter that was unloaded. The agent therefore looks at its own pod once more.
"""

import logging
from collections.abc import Collection, Mapping

from headgate.adapters.plan.values import LONGEST_S, SeenPod, Spot, Wanted
from headgate.adapters.reconcile.act import ActError, PodActions
from headgate.core.adapter_pools import AdapterPool

log = logging.getLogger("headgate.adapters")


class Cleaner:
    """Goes through the files of one pod after the other."""

    def __init__(self, actions: PodActions) -> None:
        self._actions = actions

    async def clean(
        self,
        pod: SeenPod,
        pool: AdapterPool,
        known: tuple[Mapping[str, Wanted], Collection[Spot]],
        now_s: float,
    ) -> None:
        """Deletes what the pod does not need. A pod or an agent that is away is left for later."""
        if pod.listed is None:
            return
        wanted, places = known
        try:
            for version in await self._actions.kept(pod.address, pool):
                spot = Spot(pod.address, version)
                if version in pod.listed or spot in places:
                    continue
                use = wanted.get(version)
                if use is None or use.is_idle(now_s, LONGEST_S):
                    await self._actions.remove(spot, pool)
        except ActError as error:
            log.info("files on %s are left for later: %s", pod.address, error)
