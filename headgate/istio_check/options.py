"""The options with which a container starts vLLM, as far as its YAML shows them."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headgate.istio_check.lora_options import LoraOptions, lora_options
from headgate.istio_check.manifests import items, mapping, text

MODEL_LENGTH = "max-model-len"
SERVED_NAME = "served-model-name"
FORCED_USAGE = "enable-force-include-usage"
SCHEDULING = "scheduling-policy"
PRIORITY = "priority"
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)|\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKmMgGtT]?)")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SHELLS = frozenset({"sh", "bash", "ash", "dash"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The options of one vLLM.

    A field is None if the YAML does not show the value. `names` holds the names under which the
    model is served. `is_complete` is False if options may also come from a file.
    """

    model_length: int | None
    names: tuple[str, ...] | None
    forces_usage: bool
    orders_by_priority: bool
    is_complete: bool
    loras: LoraOptions


def server_options(container: Mapping[str, object]) -> ServerOptions | None:
    """The options of a container. None if it does not start vLLM."""
    words = _words(container)
    image = text(container.get("image")).rpartition("/")[2]
    # `vllm serve` and `python -m vllm.entrypoints...`, or an image that starts it by itself.
    starts = any(word == "vllm" or word.endswith("/vllm") for word in words)
    starts = starts or any(word.startswith("vllm.entrypoints") for word in words)
    if not starts and ("command" in container or not image.startswith("vllm")):
        return None
    options = dict(_options(words))
    lengths = options.get(MODEL_LENGTH, ())
    forced = options.get(FORCED_USAGE)
    names = options.get(SERVED_NAME) or _model(words, options)
    return ServerOptions(
        model_length=amount(lengths[0]) if lengths else None,
        names=names if names and not any(_VARIABLE.search(name) for name in names) else None,
        forces_usage=forced is not None and forced[:1] != ("false",),
        orders_by_priority=options.get(SCHEDULING, ())[:1] == (PRIORITY,),
        is_complete="config" not in options and not any(_is_list(word) for word in words),
        loras=lora_options(options, container),
    )


def amount(written: str) -> int | None:
    """A number as vLLM reads it: `8k` is 8000 and `8K` 8192. None for `auto` and the like."""
    match = _AMOUNT.fullmatch(written)
    if match is None:
        return None
    number, unit = match.groups()
    base = 1024 if unit.isupper() else 1000
    factor: int = base ** _POWERS[unit.lower()]
    return round(float(number) * factor)


def _words(container: Mapping[str, object]) -> list[str]:
    """The words of the command line, with the variables that the YAML defines."""
    written = [text(word) for word in items(container.get("command"))]
    program = written[0].rpartition("/")[2] if written else ""
    variables = {
        text(mapping(entry).get("name")): mapping(entry).get("value")
        for entry in items(container.get("env"))
    }
    words = [*written, *(_shown(word) for word in items(container.get("args")))]
    filled = [_filled(word, variables) for word in words]
    if program not in _SHELLS:
        return filled
    return [part for word in filled for part in _split(word)]


def _shown(word: object) -> str:
    return str(word) if isinstance(word, (str, int)) else ""


def _filled(word: str, variables: Mapping[str, object]) -> str:
    def value(match: re.Match[str]) -> str:
        known = variables.get(match[1] or match[2])
        return known if isinstance(known, str) else match[0]

    return _VARIABLE.sub(value, word)


def _split(script: str) -> list[str]:
    try:
        return shlex.split(script.replace("\\\n", " "), comments=True)
    except ValueError:
        return script.split()


def _options(words: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each option and its values. argparse takes the last one, and `_` for `-`."""
    for at, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, has_value, value = word[2:].partition("=")
        name = name.replace("_", "-")
        following = []
        for later in words[at + 1 :]:
            if later.startswith("-"):
                break
            following.append(later)
        if name.startswith("no-"):
            yield name.removeprefix("no-"), ("false",)
        else:
            yield name, (value,) if has_value else tuple(following)


def _model(words: Sequence[str], options: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The model that vLLM was started with, which is its name if it was given no other."""
    if options.get("model"):
        return options["model"][:1]
    after = words.index("serve") + 1 if "serve" in words else 0
    if after < len(words) and (after or "/" in words[0]) and not words[after].startswith("-"):
        return (words[after],)
    return None


def _is_list(word: str) -> bool:
    """Whether the shell or Kubernetes puts words here that the YAML does not show."""
    return _VARIABLE.fullmatch(word) is not None or word in ('"$@"', "$@", "$*")
