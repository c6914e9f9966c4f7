"""vLLM's parser reads the form that was decided on, or the form is refused with 400."""

import os

import pytest
from hypothesis import HealthCheck, example, given, settings

from headgate.core.contract import Namespace, RequestKey
from headgate.simulator.audio import read_form
from headgate.simulator.fields import Fields
from headgate.simulator.vllm_errors import VllmError
from tests.door.forms import FIRST, forms
from tests.envoy_process import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/audio/transcriptions"
KIND = "multipart/form-data; boundary=b0"
FLAGS = {
    "stream": RequestKey.STREAM,
    "stream_include_usage": RequestKey.INCLUDE_USAGE,
    "stream_continuous_usage_stats": RequestKey.CONTINUOUS_USAGE,
}
NOT_SERVED = ("n", "use_beam_search", "vllm_xargs")
TINY = f'--b0\r\n{FIRST}"model"\r\n\r\ntiny\r\n'
END = "\r\n--b0--\r\n"


def behind_a_model(part: str) -> tuple[str, bytes]:
    """A form with an allowed model, and this part after it."""
    return KIND, (TINY + "--b0\r\n" + part + END).encode()


HIDDEN = behind_a_model(f'{FIRST}"model"; a="\n{FIRST}"x"\r\n\r\nnobody')
"""vLLM reads a second model here; a reader that splits lines at line feeds does not."""
AFTER_PADDING = KIND, (TINY + f'--b0 \r\n{FIRST}"model"\r\n\r\nnobody' + END).encode()
BEHIND_THE_END = KIND, (TINY + f'--b0--\r\n--b0\r\n{FIRST}"model"\r\n\r\nnobody' + END).encode()
TWICE = behind_a_model(f'{FIRST}"model"\r\n\r\nnobody')
NAMED_TWICE = behind_a_model(f'{FIRST}"x"; name="model"\r\n\r\nnobody')
QUOTED = behind_a_model(f'{FIRST}"x\\"; name="model"\r\n\r\nnobody')


async def seen_of(rig: Rig, kind: str, body: bytes) -> dict[str, object] | None:
    """The metadata of a form for ext_proc; None if the form is refused."""
    await rig.reset()
    await rig.client.post(PATH, content=body, headers={"content-type": kind})
    fields = rig.services.streams[0][0].metadata_context.filter_metadata[Namespace.REQUEST].fields
    if fields[RequestKey.BODY].string_value != "form":
        return None
    form: dict[str, object] = {}
    if RequestKey.MODEL in fields:
        form["model"] = fields[RequestKey.MODEL].string_value
        form["model_at"] = int(fields[RequestKey.MODEL_AT].number_value)
    form["flags"] = {name: fields[key].bool_value for name, key in FLAGS.items() if key in fields}
    form["not_served"] = set(filter(None, fields[RequestKey.PLATFORM].string_value.split(",")))
    return form


@settings(
    max_examples=int(os.environ.get("HEADGATE_DOOR_EXAMPLES", "600")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(form=forms())
@example(form=HIDDEN)
@example(form=AFTER_PADDING)
@example(form=BEHIND_THE_END)
@example(form=TWICE)
@example(form=NAMED_TWICE)
@example(form=QUOTED)
async def test_generated_forms_are_read_alike_or_refused(rig: Rig, form: tuple[str, bytes]) -> None:
    kind, body = form
    seen = await seen_of(rig, kind, body)
    if seen is None:
        return
    try:
        theirs = (await read_form(kind, body)).values
    except VllmError:
        return  # vLLM answers 400: nothing runs
    assert theirs.get("model") == seen.get("model")
    assert {name: Fields(theirs).flag(name) for name in FLAGS if name in theirs} == seen["flags"]
    assert {name for name in NOT_SERVED if name in theirs} == seen["not_served"]
    if "model" in seen:
        at, name = seen["model_at"], str(seen["model"]).encode()
        assert isinstance(at, int)
        assert body[at : at + len(name)] == name


@pytest.mark.parametrize(
    "form", [HIDDEN, AFTER_PADDING, BEHIND_THE_END, TWICE, NAMED_TWICE, QUOTED]
)
async def test_a_second_model_is_never_passed_over(rig: Rig, form: tuple[str, bytes]) -> None:
    assert await seen_of(rig, *form) is None
