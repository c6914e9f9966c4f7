"""Do look-ups and memory of the registry stay flat while adapters and tenants grow?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import process_time

from bench.measure import in_fresh_process, resident_bytes
from bench.table import Table
from bench.tenants import MODEL, policy_of, tenant_name
from extproc.adapters import adapter_model
from headgate.adapters.registry import AdapterRow, MemoryRegistry
from headgate.core.policy import CompiledPolicy, Tenant

SIZES = ((1_000, 200), (10_000, 2_000), (100_000, 20_000))
"""Adapters and tenants."""
_NAME = "adapter-{}"
_SHARED_EVERY = 10
"""One of so many adapters is shared with another tenant."""
_ASKED = 2_000
_ROUNDS, _TURNS = 20, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A registry in a process of its own: its memory, and the seconds of one look-up."""

    bytes_each: int
    own_s: float
    foreign_s: float
    unknown_s: float


async def measure(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Table]:
    """A row for each size."""
    filled = [in_fresh_process(_fill, *size) for size in sizes]
    first_s = filled[0].own_s
    rows = [
        (
            adapters,
            tenants,
            one.bytes_each,
            one.own_s / first_s,
            one.foreign_s / first_s,
            one.unknown_s / first_s,
        )
        for (adapters, tenants), one in zip(sizes, filled, strict=True)
    ]
    return [Table(_TITLE, _COLUMNS, rows, _NOTE)]


def _fill(adapters: int, tenants: int) -> Filled:
    registry = MemoryRegistry()
    before_bytes = resident_bytes()
    registry.replace(_rows(adapters, tenants))
    registry.place(_places(adapters))
    grown_bytes = resident_bytes() - before_bytes
    policy = policy_of(tenants)
    numbers = [number * 7_919 % adapters for number in range(_ASKED)]

    def look_up_s(name: str, further: int) -> float:
        """One look-up of names of this form, by the tenant so far behind the owner."""
        asked = [
            (name.format(number), policy.tenants[tenant_name((number + further) % tenants)])
            for number in numbers
        ]
        return _look_up_s(partial(_find, policy, registry), asked)

    return Filled(
        bytes_each=grown_bytes // adapters,
        own_s=look_up_s(_NAME, 0),
        foreign_s=look_up_s(_NAME, 2),
        unknown_s=look_up_s("nothing-{}", 0),
    )


def _find(policy: CompiledPolicy, registry: MemoryRegistry, name: str, tenant: Tenant) -> None:
    """As ext_proc looks up the model of a request, and its pods."""
    model = adapter_model(name, tenant, policy, registry)
    if model is not None:
        registry.pods_of(model.served_as)


def _rows(adapters: int, tenants: int) -> Iterator[AdapterRow]:
    for number in range(adapters):
        tenant, other = tenant_name(number % tenants), tenant_name((number + 1) % tenants)
        shared_with = () if number % _SHARED_EVERY else (other,)
        yield AdapterRow(_NAME.format(number), tenant, MODEL, shared_with, ((1, 100),), False)


def _places(adapters: int) -> Iterator[tuple[str, str]]:
    """Each adapter on two of 20 pods."""
    for number in range(adapters):
        for pod in (number % 20, (number + 1) % 20):
            yield f"{_NAME.format(number)}@1", f"10.0.0.{pod}:8000"


def _look_up_s(
    look_up: Callable[[str, Tenant], None], asked: Sequence[tuple[str, Tenant]]
) -> float:
    """The least mean of some turns: other programs disturb all of them, but not alike."""
    return min(_turn_s(look_up, asked) for _ in range(_TURNS)) / _ROUNDS / len(asked)


def _turn_s(look_up: Callable[[str, Tenant], None], asked: Sequence[tuple[str, Tenant]]) -> float:
    start_s = process_time()
    for _ in range(_ROUNDS):
        for one in asked:
            look_up(*one)
    return process_time() - start_s


_TITLE = "Registered adapters in a replica's memory"
_COLUMNS = ("adapters", "tenants", "bytes an adapter", "own", "foreign", "unknown")
_NOTE = (
    "The bytes are the growth of the process, with two places of each adapter. Look-ups are ratios"
    " to the first row's `own`: of a tenant's own adapter with its pods, of a foreign one, and of a"
    " name that nobody has."
)
