"""The header of a safetensors file: the names and shapes of its tensors, not their values. Pure.

The file begins with the header's length in 8 bytes, little-endian, and the header as JSON:
`{"NAME": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, "__metadata__": {...}}`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 * 1024 * 1024
"""A header is some hundred bytes for each tensor."""
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The bytes of a value, of the types that an adapter may have."""
_METADATA = "__metadata__"


class HeaderError(ValueError):
    """A file that is no whole safetensors file. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's shape. Its type is one of `SIZES`."""

    shape: tuple[int, ...]


def read_header(file: BinaryIO, size_bytes: int) -> dict[str, Tensor]:
    """The tensors of an open file of this size. Raises HeaderError."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size_bytes < LENGTH_BYTES + length or not 2 <= length <= MAX_HEADER_BYTES:
        raise HeaderError(f"its header of {length} bytes does not fit")
    try:
        written = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise HeaderError("its header is not JSON") from None
    if not isinstance(written, dict):
        raise HeaderError("its header is not a mapping")
    data_bytes = size_bytes - LENGTH_BYTES - length
    return {
        name: _tensor(name, value, data_bytes)
        for name, value in written.items()
        if name != _METADATA
    }


def _tensor(name: str, value: Any, data_bytes: int) -> Tensor:
    try:
        kind, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    except (LookupError, TypeError, ValueError):
        raise HeaderError(f"{name[:100]} has no dtype, shape and data_offsets") from None
    if kind not in SIZES:
        known = ", ".join(SIZES)
        raise HeaderError(f"{name[:100]} is of the type {str(kind)[:20]}, not of {known}")
    if not all(type(one) is int and one >= 0 for one in (*shape, begin, end)):
        raise HeaderError(f"{name[:100]} has a shape or a place that is not of whole numbers")
    if end - begin != prod(shape) * SIZES[kind] or end > data_bytes:
        raise HeaderError(f"{name[:100]} has not the bytes of its shape")
    return Tensor(shape)


def modules_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors A and B of each module, by the module's name. Raises HeaderError for others."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, found, rest = name.rpartition(".lora_")
        side = rest.partition(".")[0]
        if not found or side not in ("A", "B") or len(tensor.shape) != 2:
            raise HeaderError(f"{name[:100]} is no matrix lora_A or lora_B")
        modules.setdefault(module, {})[side] = tensor
    return modules
