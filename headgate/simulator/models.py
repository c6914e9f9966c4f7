"""The base model's names and the LoRA adapters: resolving a name, load and unload, the list.

Statuses, types and texts from vLLM 0.32 `entrypoints/openai/models/serving.py`, with
`VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`.
"""

from pathlib import PurePosixPath
from typing import Any

from headgate.simulator.fields import Fields
from headgate.simulator.vllm_errors import VllmError, unknown_model

MISSING_PATH = "missing"
"""No adapter is found under a path whose last part is this word; every other path holds one."""


class Models:
    """The models of one server; `created_s` is when it started, in Unix seconds."""

    def __init__(
        self, served: tuple[str, ...], adapters: tuple[str, ...], max_model_len: int, created_s: int
    ) -> None:
        self._served = served
        self._adapters = {name: f"/adapters/{name}" for name in adapters}
        self._max_model_len = max_model_len
        self._created_s = created_s

    @property
    def base(self) -> str:
        """The first served name: metrics and answers of the base model carry it."""
        return self._served[0]

    def resolve(self, asked: str) -> str:
        """The name under which `asked` ("" is the base model) answers; VllmError 404 if unknown."""
        if not asked or asked in self._served:
            return self.base
        if asked in self._adapters:
            return asked
        raise unknown_model(asked, self._served)

    def load(self, body: Fields) -> str:
        """POST /v1/load_lora_adapter: the text of a success, or VllmError."""
        body.required("lora_name")
        body.required("lora_path")
        name, path = body.text("lora_name") or "", body.text("lora_path") or ""
        in_place = body.flag("load_inplace")
        if not name or not path:
            raise _invalid_input("Both 'lora_name' and 'lora_path' must be provided.")
        if name in self._served:
            text = f"The lora adapter '{name}' conflicts with a served base model."
            raise _invalid_input(text)
        if name in self._adapters and not in_place:
            text = f"The lora adapter '{name}' has already been loaded. If you want to load the"
            raise _invalid_input(f"{text} adapter in place, set 'load_inplace' to True.")
        if PurePosixPath(path).name == MISSING_PATH:
            text = f"Loading lora {name} failed: No adapter found for {path}"
            raise VllmError(404, "NotFoundError", text)
        self._adapters[name] = path
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: Fields) -> str:
        """POST /v1/unload_lora_adapter: new requests get 404, running ones finish."""
        body.required("lora_name")
        name = body.text("lora_name") or ""
        if not name:
            raise _invalid_input("'lora_name' needs to be provided to unload a LoRA adapter.")
        if name not in self._adapters:
            text = f"The lora adapter '{name}' cannot be found."
            raise VllmError(404, "NotFoundError", text)
        del self._adapters[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def listing(self) -> dict[str, Any]:
        """GET /v1/models: the base model under each of its names, then the adapters."""
        cards = [
            self._card(name, f"/models/{self.base}", None, self._max_model_len)
            for name in self._served
        ]
        for name, path in self._adapters.items():
            cards.append(self._card(name, path, self.base, None))
        return {"object": "list", "data": cards}

    def _card(
        self, name: str, root: str, parent: str | None, max_model_len: int | None
    ) -> dict[str, Any]:
        permission = {
            "id": f"modelperm-{name}",
            "object": "model_permission",
            "created": self._created_s,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": self._created_s,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": max_model_len,
            "permission": [permission],
        }


def _invalid_input(message: str) -> VllmError:
    return VllmError(400, "InvalidUserInput", message)
