"""Service curves of models that were never run here, computed from data sheets.

A step of the batch reads the weights and the sequences' KV cache once, so memory bandwidth bounds
it. A prompt needs two floating point operations a weight and token, so arithmetic bounds it. Real
engines reach a part of both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headgate.capacity.curve import ServiceCurve

REACHED = 0.5
"""The part of a data sheet's bandwidth and arithmetic that the forecast counts on."""
_STEP_OVERHEAD_S = 0.002
_FIRST_TOKEN_S = 0.03
_MAX_NUM_SEQS = 256
_CONTEXT_TOKENS = 2_000
"""Of a sequence in the batch, whose KV cache each step reads."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU by its data sheet: memory, its bandwidth, dense arithmetic in 16 bits."""

    memory_gb: float
    bandwidth_gb_per_s: float
    teraflops: float


GPUS: Mapping[str, Gpu] = {
    "A100-80GB": Gpu(80, 2_039, 312),
    "L40S": Gpu(48, 864, 362),
    "H100": Gpu(80, 3_350, 989),
    "H200": Gpu(141, 4_800, 989),
    "B200": Gpu(180, 8_000, 2_250),
}


def computed_curve(gpu: str, gpus: int, billions: float, bits: int = 16) -> ServiceCurve:
    """The curve of a dense model with `billions` of weights, on the `gpus` GPUs of one pod.

    Raises ValueError if the weights leave no room for a KV cache.
    """
    card = GPUS[gpu]
    weights_gb = billions * bits / 8
    if weights_gb > 0.85 * card.memory_gb * gpus:
        raise ValueError(
            f"{billions:g} billion weights of {bits} bits take {weights_gb:.0f} GB, and {gpus} x"
            f" {gpu} have {card.memory_gb * gpus:.0f} GB: give the pod more GPUs"
        )
    bandwidth_gb_per_s = card.bandwidth_gb_per_s * gpus * REACHED
    kv_gb = _kv_bytes_per_token(billions) * _CONTEXT_TOKENS / 1e9
    return ServiceCurve(
        gpu=gpu,
        gpus=gpus,
        first_token_s=_FIRST_TOKEN_S,
        prefill_tokens_per_s=card.teraflops * 1e12 * gpus * REACHED / (2 * billions * 1e9),
        token_interval_s=_STEP_OVERHEAD_S + weights_gb / bandwidth_gb_per_s,
        slowdown_s=kv_gb / bandwidth_gb_per_s,
        max_num_seqs=_MAX_NUM_SEQS,
        source=f"computed from the data sheet of {gpu}, never measured",
    )


def _kv_bytes_per_token(billions: float) -> float:
    """With grouped queries: 128 KiB for 8 billion weights, 320 KiB for 70 billion."""
    return 131_072 * math.pow(billions / 8, 0.42)
