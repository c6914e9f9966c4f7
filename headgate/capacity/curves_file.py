"""The file of service curves: by base model, in YAML."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headgate.capacity.curve import ServiceCurve
from headgate.core.errors import OperatorError


def load_curves(path: Path) -> Mapping[str, ServiceCurve]:
    """The curves of the file. Raises OperatorError with the model and the field that is wrong."""
    try:
        document = YAML(typ="safe", pure=True).load(path.read_bytes())
        curves = msgspec.convert(document, dict[str, ServiceCurve])
    except OSError as error:
        raise OperatorError(f"{path}: cannot be read: {error.strerror}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise OperatorError(
            f"{path}: {error}; a curve has the fields {', '.join(ServiceCurve.__annotations__)}"
        ) from None
    for model, curve in curves.items():
        check_curve(f"{path}: {model}", curve)
    return curves


def check_curve(where: str, curve: ServiceCurve) -> None:
    """Raises OperatorError for a figure that no pod has."""
    positive = {
        name: getattr(curve, name)
        for name in ("gpus", "prefill_tokens_per_s", "token_interval_s", "max_num_seqs")
    }
    for name, value in positive.items():
        if value <= 0:
            raise OperatorError(f"{where}: {name} is {value}; it must be more than 0")
    if curve.slowdown_s < 0 or curve.first_token_s < 0:
        raise OperatorError(f"{where}: slowdown_s and first_token_s must be 0 or more")


def as_yaml(model: str, curve: ServiceCurve) -> str:
    """The curve as an entry of the file."""
    lines = [f"{model}:"]
    for name, value in asdict(curve).items():
        text = f'"{value}"' if isinstance(value, str) else f"{value:.6g}"
        lines.append(f"  {name}: {text}")
    return "\n".join(lines)
