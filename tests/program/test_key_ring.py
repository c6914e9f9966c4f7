"""Keys that were issued at run time, as each hook sees them through one ring."""

from dataclasses import replace

import pytest
from msgspec import structs

from extauthz.decide import Allow, Deny
from extauthz.request import CheckInput
from extproc import decide as extproc
from extproc.estimate import Estimator
from extproc.types import Admit, Answer, Refuse
from headgate.core.errors import Refusal
from headgate.core.key_ring import WHOLE_TENANT, KeyRing, KeyScope, KeysUnavailableError
from headgate.core.keys import digest_of
from headgate.core.policy import Caller, CompiledPolicy, Count, Each, Per
from headgate.core.prices import TokenWeights
from headgate.identity.limits import KeyLimit, compiled
from ratelimit.answers import Admitted, Refused, ReserveRequest
from ratelimit.limiter import Limiter
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import StoreError
from tests.extauthz.builders import decide
from tests.extproc.builders import POLICY, facts
from tests.fakes import FakeClock
from tests.ratelimit.builders import books_of

TENANT = next(iter(POLICY.tenants))
SECRET = "sk-hg-run-time"
RUN_TIME = Caller(TENANT, "rita", "~0011223344556677")
TWO_REQUESTS = compiled(KeyLimit(Count.REQUESTS, 2, Per.DAY))
TWO_NANOS = compiled(KeyLimit(Count.COST, 2, Per.DAY))


class Ring:
    """A ring that a test fills by hand."""

    def __init__(self, *scopes: KeyScope, caller: Caller = RUN_TIME) -> None:
        self._caller = caller
        self._scopes = scopes

    def find(self, digest: bytes) -> Caller | None:
        return self._caller if digest == digest_of(SECRET) else None

    def scope_of(self, key: str) -> KeyScope | None:
        return self._scopes[0] if self._scopes and key == self._caller.key else None

    def is_blocked(self, tenant: str, user: str) -> bool:
        return False


class AwayRing:
    """A ring that knows nothing."""

    def find(self, digest: bytes) -> Caller | None:
        raise KeysUnavailableError("away")

    def scope_of(self, key: str) -> KeyScope | None:
        return None

    def is_blocked(self, tenant: str, user: str) -> bool:
        return False


def asked(secret: str = SECRET) -> CheckInput:
    return CheckInput("POST", "/v1/chat/completions", (("x-api-key", secret.encode()),))


def admit(ring: KeyRing, caller: Caller = RUN_TIME, model: str = "tiny") -> object:
    request = structs.replace(facts({"model": model}), caller=caller)
    return extproc.decide(request, POLICY, Estimator(), "r-1", ring)


def test_a_key_of_the_database_is_let_in_as_its_caller() -> None:
    decision = decide(asked(), POLICY, Ring())

    assert isinstance(decision, Allow)
    assert decision.caller == RUN_TIME


def test_a_key_that_the_file_has_too_belongs_to_the_file() -> None:
    own = Caller(TENANT, "alice", "k1")
    policy = replace(POLICY, keys={digest_of(SECRET): own})
    decision = decide(asked(), policy, Ring())

    assert isinstance(decision, Allow)
    assert decision.caller == own


@pytest.mark.parametrize(
    ("secret", "ring"),
    [
        ("sk-hg-stranger", Ring()),
        (SECRET, Ring(caller=Caller("vanished", "rita", "~00"))),
    ],
)
def test_a_stranger_and_a_key_of_a_tenant_that_is_gone_are_unknown(
    secret: str, ring: KeyRing
) -> None:
    decision = decide(asked(secret), POLICY, ring)

    assert isinstance(decision, Deny)
    assert decision.error.refusal is Refusal.BAD_KEY


def test_without_the_database_a_key_that_cannot_be_checked_gets_503_and_the_file_s_pass() -> None:
    unsure = decide(asked(), POLICY, AwayRing())

    assert isinstance(unsure, Deny)
    assert unsure.error.refusal is Refusal.UNAVAILABLE
    assert dict(unsure.headers) == {"retry-after": "1"}
    assert not unsure.counted, "the client is not to blame, and no guess can succeed"
    assert not unsure.recorded, "a flood of guesses must not fill the disk"
    policy = replace(POLICY, keys={digest_of(SECRET): Caller(TENANT, "alice", "k1")})
    assert isinstance(decide(asked(), policy, AwayRing()), Allow)


def test_a_key_for_some_models_gets_those_and_no_others() -> None:
    models = sorted(POLICY.tenants[TENANT].models)
    ring = Ring(KeyScope(models=frozenset({"tiny"})))

    assert isinstance(admit(ring), Admit)
    for other in set(models) - {"tiny"}:
        refused = admit(ring, model=other)
        assert isinstance(refused, Refuse)
        assert refused.error.refusal in (Refusal.FORBIDDEN_MODEL, Refusal.UNKNOWN_MODEL)


def test_the_model_list_of_a_narrow_key_holds_only_its_models() -> None:
    ring = Ring(KeyScope(models=frozenset({"tiny"})))
    request = structs.replace(facts({}, "/v1/models"), caller=RUN_TIME)

    answer = extproc.decide(request, POLICY, Estimator(), "r-1", ring)

    assert isinstance(answer, Answer)
    assert answer.body.count(b'"id"') == 1


def test_a_key_may_use_nothing_that_its_tenant_has_lost() -> None:
    ring = Ring(KeyScope(models=frozenset({"tiny", "no-longer-there"})))

    assert isinstance(admit(ring, model="no-longer-there"), Refuse)


def test_a_replica_that_does_not_know_the_scope_yet_refuses_in_place_of_guessing() -> None:
    for ring in (Ring(), AwayRing()):
        refused = admit(ring)
        assert isinstance(refused, Refuse)
        assert refused.error.refusal is Refusal.UNAVAILABLE


def reserve(name: str, key: str = RUN_TIME.key, user: str = "rita") -> ReserveRequest:
    return ReserveRequest(
        reservation=name, tenant=TENANT, user=user, key=key, model="tiny", api=None, tokens=1
    )


async def test_the_limits_of_a_key_count_it_alone() -> None:
    free = replace(POLICY.tenants[TENANT], limits=())
    policy = replace(POLICY, tenants={TENANT: free})
    ring = Ring(KeyScope(limits=(TWO_REQUESTS,)))
    limiter = Limiter(MemoryStore(), lambda: policy, FakeClock(), keys=ring)

    decisions = [await limiter.reserve(reserve(f"r{number}")) for number in range(3)]
    other = await limiter.reserve(reserve("r9", key="of-the-file"))

    assert [type(one) for one in decisions] == [Admitted, Admitted, Refused]
    assert isinstance(other, Admitted)
    assert TWO_REQUESTS.each == {Each.KEY}


def priced(nanos_each: int) -> CompiledPolicy:
    """The policy with a price for each token of the model tiny, and no limits."""
    weights = TokenWeights(*[1000 * nanos_each] * 3)
    tiny = replace(POLICY.models["tiny"], prices=books_of({"tiny": weights})["tiny"])
    free = replace(POLICY.tenants[TENANT], limits=())
    return replace(POLICY, models={**POLICY.models, "tiny": tiny}, tenants={TENANT: free})


@pytest.mark.parametrize("nanos_each", [1, 2])
async def test_a_limit_of_cost_counts_by_the_prices_of_the_policy_in_force(nanos_each: int) -> None:
    policy, ring = priced(nanos_each), Ring(KeyScope(limits=(TWO_NANOS,)))
    limiter = Limiter(MemoryStore(), lambda: policy, FakeClock(), keys=ring)

    decisions = [await limiter.reserve(reserve(f"r{number}")) for number in range(3)]

    admitted = 2 // nanos_each
    assert [type(one) for one in decisions] == [Admitted] * admitted + [Refused] * (3 - admitted)


def test_with_a_limit_of_cost_a_key_has_no_model_without_prices() -> None:
    """A reload may take prices away. Nobody then uses the model beside the limit."""
    ring = Ring(KeyScope(limits=(TWO_NANOS,)))
    asked_of = [
        extproc.decide(
            structs.replace(facts({"model": name}), caller=RUN_TIME),
            priced(1),
            Estimator(),
            "r-1",
            ring,
        )
        for name in ("tiny", "shy")
    ]

    assert [type(one) for one in asked_of] == [Admit, Refuse]


async def test_the_limiter_refuses_where_the_limits_of_the_key_are_not_known() -> None:
    limiter = Limiter(MemoryStore(), lambda: POLICY, FakeClock(), keys=AwayRing())

    with pytest.raises(StoreError, match="not known here yet"):
        await limiter.reserve(reserve("r1"))


def test_a_key_for_everything_costs_no_copy_of_its_tenant() -> None:
    assert isinstance(admit(Ring(WHOLE_TENANT)), Admit)
