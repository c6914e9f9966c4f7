"""Fields that a policy refuses or bounds, and those that are refused by default."""

from dataclasses import replace

import pytest

from extproc.asked import RefusedError
from extproc.decide import decide
from extproc.estimate import Estimator
from extproc.field_rules import refuse_fields
from extproc.types import Refuse
from headgate.core.apis import Api
from headgate.core.body_fields import FieldRules
from tests.extproc.builders import ALICE, MODELS, POLICY, facts


def fault(api: Api, fields: str | None, *rules: FieldRules) -> str | None:
    """The field for which the request is refused, None if it passes."""
    values = {} if fields is None else {"fields": fields}
    try:
        refuse_fields(api, values, rules)
    except RefusedError as refused:
        return refused.error.param
    return None


DEFAULTS = [
    (Api.CHAT, "prompt_logprobs=2", "prompt_logprobs"),
    (Api.CHAT, "prompt_logprobs=0", "prompt_logprobs"),
    (Api.CHAT, "prompt_logprobs=-", "prompt_logprobs"),
    (Api.COMPLETIONS, "prompt_logprobs=1", "prompt_logprobs"),
    (Api.CHAT, "echo=true", "echo"),
    (Api.CHAT, "echo=-", "echo"),
    (Api.CHAT_BATCH, "echo=true", "echo"),
    (Api.COMPLETIONS, "echo=true", None),
    (Api.COMPLETIONS, "echo=true,logprobs=0", "echo"),
    (Api.COMPLETIONS, "logprobs=1", None),
    (Api.CHAT, "logprobs=true,n=16384,tools=100,top_logprobs=20", None),
    (Api.CHAT, "", None),
    (Api.CHAT, None, None),
]


@pytest.mark.parametrize(("api", "fields", "refused"), DEFAULTS)
def test_what_can_end_an_engine_is_refused_by_default(
    api: Api, fields: str | None, refused: str | None
) -> None:
    """Log probabilities of a prompt, by whatever field. An older reader shows no field."""
    assert fault(api, fields) == refused


RULES: list[tuple[str, tuple[FieldRules, ...], str | None]] = [
    ("n=5", ({"n": 4},), "n"),
    ("n=4", ({"n": 4},), None),
    ("n=4", ({"n": 4}, {"n": 3}), "n"),
    ("n=4", ({"n": 4}, {"n": "allow"}), None),
    ("n=1", ({"n": "allow"}, {"n": "refuse"}), "n"),
    ("n=1", ({"n": 4}, {}, {"n": "refuse"}), "n"),
    ("prompt_logprobs=5", ({}, {"prompt_logprobs": "allow"}), None),
    ("prompt_logprobs=5", ({"prompt_logprobs": "refuse"}, {"prompt_logprobs": "allow"}), "*"),
    ("prompt_logprobs=5", ({"prompt_logprobs": 5},), None),
    ("prompt_logprobs=-1", ({"prompt_logprobs": 5},), "prompt_logprobs"),
    ("logprobs=true", ({"logprobs": 0},), "logprobs"),
    ("logprobs=true", ({"logprobs": 1},), None),
    ("top_logprobs=-", ({"top_logprobs": 5},), "top_logprobs"),
    ("tools=65", ({"tools": 64},), "tools"),
    ("tools=0", ({"tools": 0},), None),
    ("echo=true", ({"echo": "allow"},), None),
]


@pytest.mark.parametrize(("fields", "rules", "refused"), RULES)
def test_the_strictest_rule_counts(
    fields: str, rules: tuple[FieldRules, ...], refused: str | None
) -> None:
    """Of the policy, the model and the tenant. A rule takes the place of a default."""
    expected = fields.partition("=")[0] if refused == "*" else refused
    assert fault(Api.CHAT, fields, *rules) == expected


def test_a_completion_that_may_echo_with_logprobs_obeys_the_rule_of_prompt_logprobs() -> None:
    echo = "echo=true,logprobs=3"
    assert fault(Api.COMPLETIONS, echo, {"prompt_logprobs": "allow"}) is None
    assert fault(Api.COMPLETIONS, echo, {"prompt_logprobs": 2}) == "logprobs"


@pytest.mark.parametrize("place", ["policy", "model", "tenant"])
def test_a_rule_holds_wherever_the_policy_has_it(place: str) -> None:
    shut: FieldRules = {"structured_outputs": "refuse"}
    policy = POLICY
    if place == "policy":
        policy = replace(POLICY, fields=shut)
    elif place == "model":
        models = {**MODELS, "tiny": replace(MODELS["tiny"], fields=shut)}
        policy = replace(POLICY, models=models)
    else:
        tenant = replace(POLICY.tenants["acme"], fields=shut)
        policy = replace(POLICY, tenants={ALICE.tenant: tenant})
    asked = facts({"model": "tiny", "fields": "structured_outputs=1"})

    decision = decide(asked, policy, Estimator(), "r-1")

    assert isinstance(decision, Refuse)
    assert (decision.error.refusal.status, decision.error.param) == (400, "structured_outputs")
    assert decision.error.message == "`structured_outputs` is not allowed here; leave it out."
