"""The models that cost pools and cloud prices name must be in the file."""

from collections.abc import Iterator

from headgate.policy.document import Path, YamlMapping, line_of
from headgate.policy.nodes import keys, mappings, texts
from headgate.policy.problems import PolicyRule, Problem, hint, shown


def check_showback(root: YamlMapping) -> Iterator[Problem]:
    """The models that the file does not have, and adapters where a base model belongs."""
    models = keys(root, "models")
    bases = {str(name): None for name, entry in mappings(root, "models") if "base" not in entry}
    for name, pool in mappings(root, "cost_pools"):
        for index, model in texts(pool, "models"):
            if models and model not in bases:
                path: Path = ("cost_pools", name, "models", index)
                yield _unknown(root, path, model, bases, "the base models under models")
    for name, cloud in mappings(root, "cloud_prices"):
        for model in keys(cloud, "models"):
            if models and model not in models:
                path = ("cloud_prices", name, "models", model)
                yield _unknown(root, path, model, models, "the names under models")


def _unknown(
    root: YamlMapping, path: Path, model: str, known: dict[str, None], allowed: str
) -> Problem:
    fault = f"is not such a model in this file (value {shown(model)}){hint(model, known)}"
    return Problem(
        rule=PolicyRule.UNKNOWN_MODEL,
        fault=fault,
        advice=f"allowed: {allowed}",
        path=path,
        line=line_of(root, path),
    )
