"""The pods of a base model on which Headgate loads adapters."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterPool:
    """Where and how many adapters of a base model are loaded.

    Each of `pods` is a host and a port of vLLM. A host with several addresses, such as a headless
    Service, stands for a pod at each. `live` is vLLM's --max-loras, `listed` its --max-cpu-loras
    and `max_rank` its --max-lora-rank. `trained_on` are the names of the base model that an
    adapter's configuration may have. The agent of a pod listens on `agent_port` of its address,
    and copies each version to a folder of its name below `folder`.
    """

    pods: tuple[str, ...]
    live: int
    listed: int
    max_rank: int
    trained_on: tuple[str, ...]
    folder: str
    agent_port: int
