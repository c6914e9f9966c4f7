"""The LiteLLM proxy: one worker, with a master key and no database. It needs no Envoy."""

from bench.peers.builds import LITELLM, python_program
from bench.peers.envoy import KEY
from bench.peers.processes import Place, Stack, free_port

_CONFIG = """
model_list:
  - model_name: tiny
    litellm_params:
      model: openai/tiny
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
      rpm: 100000000
      tpm: 1000000000000
litellm_settings: {{telemetry: false, drop_params: true}}
general_settings: {{master_key: {key}}}
"""


def litellm(place: Place) -> Stack:
    """A model with limits of its own."""
    program = python_program(place.peers, LITELLM, "litellm")
    file = place.folder / "litellm.yaml"
    file.write_text(_CONFIG.format(upstream=place.upstream_port, key=KEY))
    port = free_port()
    options = ("--config", file, "--host", "127.0.0.1", "--port", port, "--num_workers", 1)
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_DOCS": "True"}
    process = place.start([program, *options, "--telemetry", "False"], "litellm", env)
    place.wait_for(port, process, "litellm")
    headers = {"authorization": f"Bearer {KEY}"}
    return Stack(name="litellm", port=port, headers=headers, pids={"services": [process.pid]})
