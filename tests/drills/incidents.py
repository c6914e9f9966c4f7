"""The incidents: what goes wrong, and whom it must wake."""

import resource
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.drills.certificate import USUAL_DAYS
from tests.drills.load import USUAL, Clients
from tests.drills.scene import Scene, crash_envoy, go_on, hang, restart_box

Act = Callable[[Scene], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One fault. `page` and `ticket` name the alerts that must come, and no other page may.

    `names` are labels that the expected alert must have. The fault lasts until the expected
    message has come, at most `lasts_s`; without an expected message it lasts `lasts_s`.
    """

    what: str
    begin: Act
    end: Act
    lasts_s: float
    page: str | None = None
    ticket: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    cause: str = ""


def _loaded_with(*more: Clients) -> Act:
    def act(scene: Scene) -> None:
        scene.load.now = (*USUAL, *more)

    return act


def _usual(scene: Scene) -> None:
    scene.load.now = USUAL


def _kill(*names: str) -> Act:
    def act(scene: Scene) -> None:
        for name in names:
            scene.vllms[name].kill()

    return act


def _start(*names: str) -> Act:
    def act(scene: Scene) -> None:
        for name in names:
            scene.vllms[name].start()

    return act


def _simulate(name: str, **failures: float) -> Act:
    return lambda scene: scene.vllms[name].simulate(**failures)


def _healthy(name: str) -> Act:
    return lambda scene: scene.vllms[name].simulate()


def _one_failure(scene: Scene) -> None:
    scene.load.now = (*USUAL, replace(USUAL[2], rate=0.02, simulate="status=500"))


def _store_sleeps(scene: Scene) -> None:
    scene.redis.client().execute_command("DEBUG", "SLEEP", "2")


def _spoil_policy(scene: Scene) -> None:
    file = scene.box.folder / "headgate.yaml"
    file.write_text(file.read_text().replace("per: minute", "per: fortnight"))


def _mend_policy(scene: Scene) -> None:
    file = scene.box.folder / "headgate.yaml"
    file.write_text(file.read_text().replace("per: fortnight", "per: minute"))


def _stop_growth(scene: Scene) -> None:
    # Of the files of this process, the records are the largest.
    size = (scene.box.folder / "usage.jsonl").stat().st_size
    resource.prlimit(scene.box.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _allow_growth(scene: Scene) -> None:
    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(scene.box.process.pid, resource.RLIMIT_FSIZE, no_limit)


def _certificate_of(days: int) -> Act:
    return lambda scene: scene.certificate.renew(days)


def _nothing(scene: Scene) -> None:
    """Ends by itself."""


INCIDENTS = {
    "dead-upstream": Incident(
        what="both vLLMs of a model are killed",
        begin=_kill("tiny v1", "tiny v2"),
        end=_start("tiny v1", "tiny v2"),
        lasts_s=120,
        page="HeadgateUpstreamDead",
        names={"model": "tiny"},
        cause="no connection to vLLM",
    ),
    "dead-version": Incident(
        what="the vLLM of one version is killed",
        begin=_kill("tiny v2"),
        end=_start("tiny v2"),
        lasts_s=120,
        page="HeadgateUpstreamDead",
        names={"model": "tiny", "version": "v2"},
        cause="no connection to vLLM",
    ),
    "store-away": Incident(
        what="Redis hangs",
        begin=lambda scene: scene.redis.freeze(),
        end=lambda scene: scene.redis.thaw(),
        lasts_s=120,
        page="HeadgateStoreAway",
        cause="Redis",
    ),
    "store-pause": Incident(
        what="Redis hangs for 2 s",
        begin=_store_sleeps,
        end=_nothing,
        lasts_s=60,
    ),
    "dead-hooks": Incident(
        what="the services hang",
        begin=lambda scene: hang(scene.box),
        end=lambda scene: go_on(scene.box),
        lasts_s=120,
        page="HeadgateDown",
        cause="the services",
    ),
    "envoy-crash": Incident(
        what="Envoy crashes, and the box with it",
        begin=crash_envoy,
        end=restart_box,
        lasts_s=120,
        page="HeadgateDown",
        cause="the services",
    ),
    "version-errors": Incident(
        what="one version answers 500",
        begin=_simulate("tiny v2", status=500),
        end=_healthy("tiny v2"),
        lasts_s=120,
        page="HeadgateVersionFails",
        names={"model": "tiny", "version": "v2"},
        cause="5xx of one version",
    ),
    "cut-streams": Incident(
        what="a vLLM cuts streams in the middle",
        begin=_simulate("small", cut_after=4),
        end=_healthy("small"),
        lasts_s=120,
        page="HeadgateVersionFails",
        names={"model": "small"},
        cause="answers that break off",
    ),
    "slow-version": Incident(
        what="one version takes 9 s for the first token",
        begin=_simulate("tiny v2", ttft=9),
        end=_healthy("tiny v2"),
        lasts_s=240,
        ticket="HeadgateTtftHigh",
        names={"model": "tiny", "version": "v2"},
        cause="slow first token",
    ),
    "queueing": Incident(
        what="requests of one version wait for 12 s in the queue of its vLLM",
        begin=_simulate("tiny v2", headers_delay=12),
        end=_healthy("tiny v2"),
        lasts_s=360,
        ticket="HeadgateQueueBacklog",
        names={"model": "tiny", "version": "v2"},
        cause="the queue",
    ),
    "bad-policy": Incident(
        what="a bad policy file is put in place",
        begin=_spoil_policy,
        end=_mend_policy,
        lasts_s=60,
        ticket="HeadgatePolicyRefused",
        cause="the policy file",
    ),
    "flood": Incident(
        what="a tenant floods its limit",
        begin=_loaded_with(Clients(user="carol", model="small", rate=14, max_tokens=2)),
        end=_usual,
        lasts_s=300,
        ticket="HeadgateQuotaExhausted",
        names={"tenant": "globex"},
        cause="429 of one tenant",
    ),
    "wrong-keys": Incident(
        what="somebody tries unknown keys, 10 a second",
        begin=_loaded_with(Clients(user="alice", model="tiny", rate=10, key="sk-wrong")),
        end=_usual,
        lasts_s=240,
        ticket="HeadgateUnknownKeys",
        cause="unknown keys",
    ),
    "clients-leave": Incident(
        what="clients leave in the middle, 3 a second",
        begin=_loaded_with(
            Clients(user="alice", model="tiny", rate=3, max_tokens=200, leave_after=3)
        ),
        end=_usual,
        lasts_s=60,
    ),
    "one-failure": Incident(
        what="a single request fails",
        begin=_one_failure,
        end=_usual,
        lasts_s=45,
    ),
    "full-disk": Incident(
        what="the file of usage records cannot grow",
        begin=_stop_growth,
        end=_allow_growth,
        lasts_s=120,
        page="HeadgateRecordsLost",
        cause="the records' file",
    ),
    "certificate": Incident(
        what="the door gets a certificate of 10 days",
        begin=_certificate_of(10),
        end=_certificate_of(USUAL_DAYS),
        lasts_s=60,
        ticket="HeadgateCertificate",
        cause="the certificate",
    ),
    "certificate-ends": Incident(
        what="the door gets a certificate of one day",
        begin=_certificate_of(1),
        end=_certificate_of(USUAL_DAYS),
        lasts_s=60,
        page="HeadgateCertificateEnds",
        cause="the certificate",
    ),
}
