"""The samples of a page of metrics, in Prometheus' text format."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Samples:
    """Each sample's labels and value, by the name of its series."""

    by_name: Mapping[str, tuple[tuple[Mapping[str, str], float], ...]]

    def of(self, name: str) -> tuple[tuple[Mapping[str, str], float], ...]:
        """The samples of one name; none for a name that is not there."""
        return self.by_name.get(name, ())

    def value(self, name: str, **labels: str) -> float | None:
        """The sum over the samples with these labels; None if there is none."""
        wanted = labels.items()
        found = [value for own, value in self.of(name) if wanted <= own.items()]
        return sum(found) if found else None


def parse_samples(text: str) -> Samples:
    """Reads the text. Raises ValueError for another format."""
    by_name: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            by_name.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Samples({name: tuple(samples) for name, samples in by_name.items()})
