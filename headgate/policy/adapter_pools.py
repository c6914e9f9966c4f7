"""The part of a model's entry that says where Headgate loads adapters."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from headgate.core.adapter_pools import AdapterPool
from headgate.policy.fields import SERVED_NAME_RULE, Entry, ServedName, distinct, invalid
from headgate.policy.problems import PolicyRule, shown

AGENT_PORT = 9003
FOLDER = "/adapters"
MAX_LISTED = 1_000
MAX_RANK = 1_024
PODS_RULE = (
    "a list of host:port of vLLM, where a name with several addresses stands for a pod at each"
)
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]"
_POD = re.compile(rf"({_HOST}):[0-9]{{1,5}}")
_FOLDER = r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$"


def _pod(text: str) -> str:
    if _POD.fullmatch(text) is None or not 1 <= int(text.rpartition(":")[2]) <= 65_535:
        raise invalid(PolicyRule.BAD_URL, f"is not host:port of a pod (value {shown(text)})")
    return text


Pod = Annotated[str, AfterValidator(_pod)]


class AdapterPoolEntry(Entry):
    """The pods of a base model, and how many adapters each takes."""

    pods: Annotated[list[Pod], Field(min_length=1), AfterValidator(distinct)] = Field(
        description=PODS_RULE
    )
    live: int = Field(
        ge=1, le=MAX_LISTED, description=f"vLLM's --max-loras: a whole number up to {MAX_LISTED}"
    )
    listed: int = Field(
        ge=1,
        le=MAX_LISTED,
        description=f"vLLM's --max-cpu-loras: a whole number from live to {MAX_LISTED}",
    )
    max_rank: int = Field(
        ge=1, le=MAX_RANK, description=f"vLLM's --max-lora-rank: a whole number up to {MAX_RANK}"
    )
    trained_on: Annotated[list[ServedName], Field(min_length=1), AfterValidator(distinct)] = Field(
        description=f"a list of the base's names in configurations of adapters: {SERVED_NAME_RULE}"
    )
    folder: str = Field(
        default=FOLDER,
        pattern=_FOLDER,
        description="the absolute path of the folder that the agents fill, as vLLM sees it",
    )
    agent_port: int = Field(
        default=AGENT_PORT, ge=1, le=65_535, description="a port number, where agents listen"
    )

    @model_validator(mode="after")
    def _lists_what_is_live(self) -> "AdapterPoolEntry":
        if self.listed < self.live:
            fault = f"lists fewer adapters than are live (values {self.listed} and {self.live})"
            raise invalid(PolicyRule.TOO_SMALL, fault)
        return self


def pool_of(entry: AdapterPoolEntry | None) -> AdapterPool | None:
    """The pool for the reconciler and the hooks."""
    if entry is None:
        return None
    return AdapterPool(
        pods=tuple(entry.pods),
        live=entry.live,
        listed=entry.listed,
        max_rank=entry.max_rank,
        trained_on=tuple(entry.trained_on),
        folder=entry.folder,
        agent_port=entry.agent_port,
    )
