"""Runs one drill: a healthy past, the fault, what the pager got, and when it was over."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.drills.incidents import INCIDENTS, Incident
from tests.drills.monitoring import Monitoring, Tools, running_monitoring
from tests.drills.pager import Message, Pager, running_pager
from tests.drills.scene import Scene, running_scene

WARM_UP_S = 20
QUIET_S = 40
"""Two scrapes and two evaluations before the fault: nothing may fire then."""
RESOLVE_S = 480
PAGE_S = 60
"""How long a page may take."""
LATE_S = 75
"""How long a second page may come after everything is quiet: a group's interval, and a scrape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a drill showed. Times are in seconds from the begin of the fault, or its end."""

    name: str
    before: frozenset[str]
    pages: tuple[tuple[float, Message], ...]
    tickets: tuple[tuple[float, Message], ...]
    resolved_s: float | None

    @property
    def incident(self) -> Incident:
        return INCIDENTS[self.name]

    @property
    def problems(self) -> list[str]:
        """What is not as the incident demands."""
        found = [f"{name} fired before the fault" for name in self.before]
        wanted = self.incident
        paged = {message.label("alertname") for _, message in self.pages}
        found += [f"page {name} besides" for name in paged - {wanted.page}]
        told = self.told
        if told is None and (wanted.page or wanted.ticket):
            kind = "page" if wanted.page else "ticket"
            found.append(f"no {kind} {wanted.page or wanted.ticket} with {wanted.names}")
        if told is not None and wanted.page and told[0] > PAGE_S:
            found.append(f"the page took {told[0]:.0f} s")
        if self.resolved_s is None:
            found.append("it did not resolve")
        return found

    @property
    def told(self) -> tuple[float, Message] | None:
        """The first expected message, and when it came."""
        wanted = self.incident
        messages = self.pages if wanted.page else self.tickets
        for after_s, message in messages:
            is_it = message.label("alertname") == (wanted.page or wanted.ticket)
            if is_it and all(message.label(key) == text for key, text in wanted.names.items()):
                return after_s, message
        return None


def drill(name: str, tools: Tools) -> Outcome:
    """Plays the incident of this name; takes minutes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with running_scene(folder) as scene, running_pager() as (pager, url):
            time.sleep(WARM_UP_S)
            targets = scene.targets(WARM_UP_S)
            with running_monitoring(folder, tools, targets, url) as monitoring:
                return _play(name, scene, monitoring, pager)


def _play(name: str, scene: Scene, monitoring: Monitoring, pager: Pager) -> Outcome:
    incident = INCIDENTS[name]
    time.sleep(QUIET_S)
    before = frozenset(message.label("alertname") for message in pager.messages)
    begin_s = time.time()
    incident.begin(scene)
    try:
        _wait_for_message(incident, pager, begin_s)
    finally:
        incident.end(scene)
    end_s = time.time()
    resolved_s = _wait_until_quiet(monitoring, end_s)
    time.sleep(LATE_S)

    def since(receiver: str) -> tuple[tuple[float, Message], ...]:
        return tuple((message.at_s - begin_s, message) for message in pager.got(receiver))

    return Outcome(
        name=name,
        before=before,
        pages=since("page"),
        tickets=since("ticket"),
        resolved_s=resolved_s,
    )


def _wait_for_message(incident: Incident, pager: Pager, begin_s: float) -> None:
    """Until the expected alert has been told, or the fault's time is over."""
    wanted = incident.page or incident.ticket
    while time.time() < begin_s + incident.lasts_s:
        if wanted and any(message.label("alertname") == wanted for message in pager.messages):
            return
        time.sleep(0.5)


def _wait_until_quiet(monitoring: Monitoring, end_s: float) -> float | None:
    """Seconds until no cause and no state fires; symptoms have windows that outlast them."""
    promql = 'ALERTS{alertstate="firing",kind=~"cause|state"}'
    while (passed_s := time.time() - end_s) < RESOLVE_S:
        if not monitoring.query(promql):
            return passed_s
        time.sleep(2)
    return None
