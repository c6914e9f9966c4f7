"""The options of a container's vLLM about adapters, as far as its YAML shows them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from headgate.istio_check.manifests import items, mapping

LIVE = "max-loras"
LISTED = "max-cpu-loras"
RANK = "max-lora-rank"
ENABLE = "enable-lora"
MODULES = "lora-modules"
UPDATING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
PLUGINS = "VLLM_PLUGINS"
RESOLVERS = {
    "VLLM_LORA_RESOLVER_CACHE_DIR": "lora_filesystem_resolver",
    "VLLM_LORA_RESOLVER_HF_REPO_LIST": "lora_hf_hub_resolver",
}
"""The variable that turns on each resolver of vLLM, and the plugin that it needs. Without
VLLM_PLUGINS vLLM has all plugins."""
_LIVE_DEFAULT = "1"
_RANK_DEFAULT = "16"
_TRUE = frozenset({"1", "true"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """The options of vLLM about adapters, by their names; its own defaults without one.

    A size is None if the YAML does not show it. `loaders` are the parts of the YAML by which vLLM
    itself loads adapters.
    """

    is_enabled: bool
    is_updated: bool
    sizes: Mapping[str, int | None]
    loaders: tuple[str, ...]


def lora_options(
    options: Mapping[str, tuple[str, ...]], container: Mapping[str, object]
) -> LoraOptions:
    """The options about adapters of a container whose command line has these `options`."""
    variables = {
        str(mapping(entry).get("name")): mapping(entry).get("value")
        for entry in items(container.get("env"))
    }
    enabled = options.get(ENABLE)
    live = options.get(LIVE, (_LIVE_DEFAULT,))
    listed = options.get(LISTED, live)
    rank = options.get(RANK, (_RANK_DEFAULT,))
    sizes = {LIVE: live, LISTED: listed, RANK: rank}
    updating = variables.get(UPDATING, "0")
    return LoraOptions(
        is_enabled=enabled is not None and enabled[:1] != ("false",),
        is_updated=not isinstance(updating, str) or updating.lower() in _TRUE,
        sizes={name: _whole(values) for name, values in sizes.items()},
        loaders=tuple(_loaders(options, variables)),
    )


def _loaders(
    options: Mapping[str, tuple[str, ...]], variables: Mapping[str, object]
) -> Iterator[str]:
    if options.get(MODULES):
        yield f"--{MODULES}"
    named = variables.get(PLUGINS)
    plugins = named.split(",") if isinstance(named, str) else list(RESOLVERS.values())
    for variable, plugin in RESOLVERS.items():
        if plugin in plugins and variables.get(variable, "") != "":
            yield variable
    yield from (
        f"{PLUGINS}={plugin}"
        for plugin in plugins
        if "resolver" in plugin and plugin not in RESOLVERS.values()
    )


def _whole(values: tuple[str, ...]) -> int | None:
    word = values[0] if values else ""
    return int(word) if word.isascii() and word.isdigit() else None
