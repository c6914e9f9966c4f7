"""For the owners of a model: what vLLM does by version and pod, canary beside stable."""

from dashboards.board import RATE, Board, Line, Panel, Unit, Variable, mean, quantile

_ALL = 'model_name=~"$model",version=~"$version"'
_BY = "model_name, version"
_NAME = "{{model_name}} {{version}}"


def _rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{_ALL}{more}}}[{RATE}]))"


def _shares(*shares: str, histogram: str) -> tuple[Line, ...]:
    return tuple(
        Line(quantile(share, histogram, _BY, _ALL), f"{_NAME} p{share[2:].ljust(2, '0')}")
        for share in shares
    )


_TIMES = (
    Panel(
        title="Time to the first token",
        unit=Unit.SECONDS,
        lines=_shares("0.5", "0.95", histogram="vllm:time_to_first_token_seconds"),
    ),
    Panel(
        title="Time per token",
        unit=Unit.SECONDS,
        lines=_shares("0.5", "0.95", histogram="vllm:inter_token_latency_seconds"),
    ),
    Panel(
        title="Time in the queue",
        unit=Unit.SECONDS,
        lines=_shares("0.5", "0.95", histogram="vllm:request_queue_time_seconds"),
    ),
    Panel(
        title="Mean time for the prompt and for the output",
        unit=Unit.SECONDS,
        lines=(
            Line(mean("vllm:request_prefill_time_seconds", _BY, _ALL), f"{_NAME} prompt"),
            Line(mean("vllm:request_decode_time_seconds", _BY, _ALL), f"{_NAME} output"),
        ),
    ),
    Panel(
        title="Time to the end of a request",
        unit=Unit.SECONDS,
        lines=_shares("0.5", "0.95", histogram="vllm:e2e_request_latency_seconds"),
    ),
)
_LOAD = (
    Panel(
        title="Waiting in each pod",
        lines=(Line(f"vllm:num_requests_waiting{{{_ALL}}}", f"{_NAME} {{{{instance}}}}"),),
    ),
    Panel(
        title="Running in each pod",
        lines=(Line(f"vllm:num_requests_running{{{_ALL}}}", f"{_NAME} {{{{instance}}}}"),),
    ),
    Panel(
        title="KV cache in use in each pod",
        unit=Unit.RATIO,
        lines=(Line(f"vllm:kv_cache_usage_perc{{{_ALL}}}", f"{_NAME} {{{{instance}}}}"),),
    ),
    Panel(
        title="Preemptions",
        unit=Unit.PER_SECOND,
        lines=(Line(_rate("vllm:num_preemptions_total", _BY), _NAME),),
        text="Requests that left the batch because the KV cache was full, and are computed anew.",
    ),
    Panel(
        title="Prompt tokens found in the prefix cache",
        unit=Unit.RATIO,
        lines=(
            Line(
                f"{_rate('vllm:prefix_cache_hits_total', _BY)}"
                f" / {_rate('vllm:prefix_cache_queries_total', _BY)}",
                _NAME,
            ),
        ),
    ),
    Panel(
        title="Tokens a second",
        lines=(
            Line(_rate("vllm:prompt_tokens_total", _BY), f"{_NAME} prompt"),
            Line(_rate("vllm:generation_tokens_total", _BY), f"{_NAME} output"),
        ),
    ),
)
_REQUESTS = (
    Panel(
        title="Prompt length, p50 and p95",
        lines=_shares("0.5", "0.95", histogram="vllm:request_prompt_tokens"),
    ),
    Panel(
        title="Output length, p50 and p95",
        lines=_shares("0.5", "0.95", histogram="vllm:request_generation_tokens"),
    ),
    Panel(
        title="Finish reasons",
        unit=Unit.PER_SECOND,
        lines=(
            Line(
                _rate("vllm:request_success_total", f"{_BY}, finished_reason"),
                f"{_NAME} {{{{finished_reason}}}}",
            ),
        ),
    ),
)
_OF_HEADGATE = 'base=~"$model",version=~"$version"'
_DEMAND = (
    Panel(
        title="Demand: tokens a second that the limits let in",
        lines=(
            Line(
                "sum by (base, version)"
                f" (rate(headgate_reserved_tokens_total{{{_OF_HEADGATE}}}[{RATE}]))",
                "{{base}} {{version}}",
            ),
        ),
        text="KEDA scales by it: docs/scaling.md.",
    ),
    Panel(
        title="Reserved tokens in flight",
        lines=(
            Line(
                "sum by (base, version)"
                f" (increase(headgate_reserved_tokens_total{{{_OF_HEADGATE}}}[15m]))"
                " - sum by (base, version)"
                f" (increase(headgate_settled_tokens_total{{{_OF_HEADGATE}}}[15m]))",
                "{{base}} {{version}}",
            ),
        ),
        text="Of requests that began in the last 15 minutes.",
    ),
    Panel(
        title="Pods asked, beside the list of each request",
        unit=Unit.PER_SECOND,
        lines=(
            Line(
                "sum by (base, version, pod)"
                f" (rate(headgate_placement_answers_total{{{_OF_HEADGATE}}}[{RATE}]))",
                "{{base}} {{version}} {{pod}}",
            ),
        ),
        text="Of models whose pods Headgate chooses: docs/placement.md.",
    ),
    Panel(
        title="Share of each version in the answers that broke off or failed",
        unit=Unit.RATIO,
        lines=(
            Line(
                "sum by (model, version) (rate(headgate_answers_total"
                f'{{model=~"$model",version=~"$version",ended="upstream_broke"}}[{RATE}]))'
                " / sum by (model, version) (rate(headgate_answers_total"
                f'{{model=~"$model",version=~"$version",ended!="-"}}[{RATE}]))',
                "{{model}} {{version}}",
            ),
        ),
    ),
)

BOARD = Board(
    name="model-owner",
    title="Headgate: a model",
    variables=(
        Variable("model", "vllm:num_requests_running", "model_name"),
        Variable("version", "vllm:num_requests_running", "version"),
    ),
    panels=(*_TIMES, *_LOAD, *_REQUESTS, *_DEMAND),
)
