"""The registered adapters and their places in this process' memory. A look-up asks nobody."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from headgate.core.adapters import AdaptersUnavailableError, RegisteredAdapter
from headgate.core.rendezvous import ordered


class AdapterRow(NamedTuple):
    """An adapter as the database gives it: its owner, the tenants that share it, its versions.

    `weights` are as those of `RegisteredAdapter`. A removed adapter keeps its row.
    """

    name: str
    tenant: str
    base: str
    shared_with: tuple[str, ...]
    weights: tuple[tuple[int, int], ...]
    is_removed: bool


class MemoryRegistry:
    """The adapters of each tenant by name, and the open pods of each version.

    An adapter is one object, however many tenants share it.
    """

    def __init__(self) -> None:
        self._of_tenant: dict[str, dict[str, RegisteredAdapter]] = {}
        self._users: dict[str, tuple[str, ...]] = {}
        self._bases: dict[str, str] = {}
        self._pods: Mapping[str, tuple[str, ...]] = {}
        self.is_filled = False

    def __len__(self) -> int:
        """How many adapters are registered now."""
        return len(self._users)

    def find(self, name: str, tenant: str) -> RegisteredAdapter | None:
        """The adapter, if the tenant may use it. Raises AdaptersUnavailableError before a fill."""
        if not self.is_filled:
            raise AdaptersUnavailableError("the adapters of the database are not known")
        return self._of_tenant.get(tenant, _NONE).get(name)

    def names_of(self, tenant: str) -> Sequence[str]:
        """The names that the tenant may use, sorted."""
        return sorted(self._of_tenant.get(tenant, _NONE))

    def base_of(self, name: str) -> str | None:
        """The base model of an adapter, also of one that was removed."""
        return self._bases.get(name)

    def pods_of(self, version: str) -> tuple[str, ...]:
        """The pods where requests for the version may go, in the version's own order."""
        return self._pods.get(version, ())

    def replace(self, rows: Iterable[AdapterRow]) -> None:
        """Takes these adapters in place of all others."""
        self._of_tenant, self._users, self._bases = {}, {}, {}
        self.update(rows)
        self.is_filled = True

    def update(self, rows: Iterable[AdapterRow]) -> None:
        """Takes the adapters that have changed."""
        for row in rows:
            self._take(row)

    def place(self, places: Iterable[tuple[str, str]]) -> None:
        """Takes these open places, pairs of a version and a pod, in place of all others."""
        pods: dict[str, list[str]] = {}
        for version, pod in places:
            pods.setdefault(version, []).append(pod)
        self._pods = {version: ordered(version, tuple(found)) for version, found in pods.items()}

    def _take(self, row: AdapterRow) -> None:
        """The base of a removed adapter stays: requests that it answered may still settle."""
        self._bases[row.name] = row.base
        for tenant in self._users.pop(row.name, ()):
            del self._of_tenant[tenant][row.name]
        if row.is_removed:
            return
        adapter = RegisteredAdapter(name=row.name, base=row.base, weights=row.weights)
        users = tuple(dict.fromkeys((row.tenant, *row.shared_with)))
        for tenant in users:
            self._of_tenant.setdefault(tenant, {})[row.name] = adapter
        self._users[row.name] = users


_NONE: Mapping[str, RegisteredAdapter] = {}
