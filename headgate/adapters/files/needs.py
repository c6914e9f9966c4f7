"""Whether a vLLM may still read the files of a version. Pure.

A request for an adapter whose files are gone ends vLLM's process. vLLM may read them at a request
for what it lists. It may also read them for a request that came before the unload. Such a request
waits for a slot, or runs and may be preempted.
"""

import re
from collections.abc import Collection

_WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)
_ADAPTERS = re.compile(r"^vllm:lora_requests_info\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_NAMES = re.compile(r'(?:running|waiting)_lora_adapters="([^"]*)"')


def need_of(version: str, listed: Collection[str], exposition: str) -> str:
    """Why the files must stay; empty if they need not.

    `listed` are the models of vLLM, and `exposition` are its metrics.
    """
    if version in listed:
        return "vLLM lists it"
    if version in _in_use(exposition):
        return "requests for it run"
    waiting = [float(number) for number in _WAITING.findall(exposition)]
    return "" if waiting and not any(waiting) else "requests wait, perhaps for it"


def _in_use(exposition: str) -> set[str]:
    """The adapters with a running request at vLLM's last step.

    The value of a series is the time of the last step that it describes. It does not name those
    whose requests wait for a slot (seen in vLLM 0.32).
    """
    series = _ADAPTERS.findall(exposition)
    if not series:
        return set()
    labels, _ = max(series, key=lambda one: float(one[1]))
    return {name for names in _NAMES.findall(labels) for name in names.split(",")}
