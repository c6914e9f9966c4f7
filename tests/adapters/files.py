"""Adapters as files, with tensors of any shape and of zeros."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BASE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIG = {"peft_type": "LORA", "base_model_name_or_path": "org/tiny", "r": 4}


def tensors_of(rank: int = 4, hidden: int = 64, layers: int = 2) -> dict[str, tuple[int, ...]]:
    """The shapes of an adapter on `q_proj` and `v_proj`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        for name, outputs in (("q_proj", hidden), ("v_proj", hidden // 2)):
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            shapes[f"{module}.lora_A.weight"] = (rank, hidden)
            shapes[f"{module}.lora_B.weight"] = (outputs, rank)
    return shapes


def safetensors(shapes: Mapping[str, tuple[int, ...]], **more: Any) -> bytes:
    """A whole file of F16 zeros with these shapes."""
    header: dict[str, Any] = dict(more)
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape[0] * shape[1]
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def write_adapter(
    folder: Path, config: Mapping[str, Any] = CONFIG, weights: bytes | None = None
) -> Path:
    """An adapter in a folder of its own."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    data = safetensors(tensors_of()) if weights is None else weights
    (folder / "adapter_model.safetensors").write_bytes(data)
    return folder


def write_base(folder: Path) -> Path:
    """The configuration of the base model."""
    path = folder / "config.json"
    path.write_text(json.dumps(BASE))
    return path
