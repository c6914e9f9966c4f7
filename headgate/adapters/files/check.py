"""Whether an adapter fits its base model. Pure.

vLLM answers 200 to a load of an adapter of another base or with tensors of other shapes. So they
are checked before the load: the base's name, the rank, and each shape against the base's sizes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.adapters.files.header import HeaderError, Tensor, modules_of

MAX_PROBLEMS = 5
_LAYER = re.compile(r"\.layers\.([0-9]{1,6})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShape:
    """The sizes of a base model, from its config.json."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "BaseShape":
        """Raises KeyError and TypeError for a configuration of another architecture."""
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return cls(
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            key_value_heads=int(config.get("num_key_value_heads") or heads),
            head=int(config.get("head_dim") or hidden // heads),
        )

    def module(self, name: str) -> tuple[int, int] | None:
        """The input and output of a module such as `q_proj`; None for one that is not known."""
        queries, values = self.heads * self.head, self.key_value_heads * self.head
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, values),
            "v_proj": (self.hidden, values),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }.get(name)


@dataclass(frozen=True, slots=True)
class Fit:
    """The adapters that a base model's pods take: up to a rank, and trained on these names."""

    max_rank: int
    trained_on: tuple[str, ...]


def problems_of(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: BaseShape, fit: Fit
) -> list[str]:
    """Why the adapter must not be loaded: at most `MAX_PROBLEMS`; empty if it may be.

    `config` is its adapter_config.json.
    """
    found: list[str] = []
    for problem in _problems(config, tensors, base, fit):
        found.append(problem)
        if len(found) == MAX_PROBLEMS:
            break
    return found


def _problems(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: BaseShape, fit: Fit
) -> Iterator[str]:
    if config.get("peft_type") != "LORA":
        yield f"its peft_type is {str(config.get('peft_type'))[:50]}, not LORA"
    name = config.get("base_model_name_or_path")
    if name not in fit.trained_on:
        yield f"it was trained on {str(name)[:200]}, not on {' or '.join(fit.trained_on)}"
    rank = config.get("r")
    if type(rank) is not int or not 1 <= rank <= fit.max_rank:
        yield f"its rank is {str(rank)[:20]}; allowed is 1 to {fit.max_rank}"
        return
    for name in ("use_dora", "rank_pattern", "modules_to_save"):
        if config.get(name):
            yield f"it uses {name}, which vLLM does not serve"
    yield from _of_tensors(tensors, rank, base)


def _of_tensors(tensors: Mapping[str, Tensor], rank: int, base: BaseShape) -> Iterator[str]:
    try:
        modules = modules_of(tensors)
    except HeaderError as error:
        yield str(error)
        return
    if not modules:
        yield "it has no tensors"
    for module, sides in modules.items():
        yield from _of_module(module, sides, rank, base)


def _of_module(
    module: str, sides: Mapping[str, Tensor], rank: int, base: BaseShape
) -> Iterator[str]:
    layer = _LAYER.search(f"{module}.")
    if layer is not None and int(layer[1]) >= base.layers:
        yield f"{module[:100]} is of a layer that the base does not have ({base.layers})"
    sizes = base.module(module.rpartition(".")[2])
    if sizes is None:
        yield f"{module[:100]} is of a module whose sizes are not known"
        return
    wanted = {"A": (rank, sizes[0]), "B": (sizes[1], rank)}
    for side, shape in wanted.items():
        has = sides[side].shape if side in sides else None
        if has != shape:
            yield f"{module[:100]}.lora_{side} has the shape {has}; the base needs {shape}"
