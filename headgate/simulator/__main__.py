"""`python -m headgate.simulator`: one simulator on one address."""

import argparse
import asyncio
import sys

import uvloop

from headgate.core.errors import OperatorError
from headgate.simulator.server import serve
from headgate.simulator.settings import Settings


def main(arguments: list[str]) -> int:
    """Serves until it is told to end. The exit code is 1 where the address is taken."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port: {options.port} is not between 0 and 65535")
    if options.max_num_seqs is not None and options.max_num_seqs < 1:
        parser.error("--max-num-seqs: at least 1")
    if options.prefill_tokens_per_s is not None and options.prefill_tokens_per_s <= 0:
        parser.error("--prefill-tokens-per-s: more than 0")
    if "" in (options.model or []):
        parser.error("--model: a name may not be empty")
    settings = Settings(
        models=tuple(options.model or ["tiny"]),
        adapters=tuple(options.adapter or []),
        max_model_len=options.max_model_len,
        default_output_tokens=options.default_output_tokens,
        ttft_s=options.ttft_s,
        token_interval_s=options.token_interval_s,
        max_num_seqs=options.max_num_seqs,
        scheduling_policy=options.scheduling_policy,
        prefill_tokens_per_s=options.prefill_tokens_per_s,
        slowdown_s=options.slowdown_s,
        force_usage=options.force_usage,
        prompt_tokens_details=options.prompt_tokens_details,
        per_request_metrics=options.per_request_metrics,
        keep_alive_s=options.keep_alive_s,
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, options.host, options.port, _say))
    except OperatorError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(prog="simulator", description="A vLLM that needs no GPU.")
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000, help="0 takes a free one [8000]")
    add("--model", action="append", metavar="NAME", help="a name of the base model [tiny]")
    add("--adapter", action="append", metavar="NAME", help="a LoRA adapter, loaded at the start")
    add("--max-model-len", type=int, default=default.max_model_len, metavar="TOKENS")
    add("--default-output-tokens", type=int, default=default.default_output_tokens, metavar="N")
    add("--ttft-s", type=float, default=default.ttft_s, metavar="S")
    add("--token-interval-s", type=float, default=default.token_interval_s, metavar="S")
    add("--max-num-seqs", type=int, metavar="N", help="sequences in the batch [no bound]")
    add("--scheduling-policy", choices=("fcfs", "priority"), default="fcfs", help="[fcfs]")
    add("--prefill-tokens-per-s", type=float, metavar="N", help="uncached prompt tokens [no bound]")
    add("--slowdown-s", type=float, default=0.0, metavar="S", help="of a step, for each sequence")
    add("--force-usage", action="store_true", help="--enable-force-include-usage of vLLM")
    add("--prompt-tokens-details", action="store_true", help="--enable-prompt-tokens-details")
    add("--per-request-metrics", action="store_true", help="--enable-per-request-metrics")
    add("--keep-alive-s", type=int, default=default.keep_alive_s, metavar="S")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
