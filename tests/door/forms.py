"""Generated forms: their heads, names and boundaries have pieces in which readers differ."""

from hypothesis import strategies as st

KINDS = (
    *["multipart/form-data; boundary=b0"] * 12,
    'multipart/form-data; boundary="b0"',
    "multipart/form-data;boundary=b0",
    "Multipart/Form-Data; Boundary=b0",
    "multipart/form-data; boundary=b0; charset=utf-16",
    "multipart/form-data; boundary=b0; boundary=b1",
    "multipart/form-data; boundary=b",
    "application/x-www-form-urlencoded",
)
NAMES = ("model", "model", "stream", "stream_include_usage", "file", "n", "vllm_xargs", "x")
VALUES = (
    "tiny",
    "nobody",
    "true",
    "False",
    "1",
    "",
    " tiny",
    "RIFF\r\n--b",
    "\r\n",
    "--b0",
    "a\r\n\r\nb",
)
FIRST = "content-disposition: form-data; name="
SPLICES = (
    "\n", "\r", "\r\n", "\r\n ", "\0", "\t", '"', '\\"', "\\", "'", ";", "; ", "=", ":", "*", " ",
    '; a="', '; filename="a"', "; filename*=utf-8''a", '; name="model"', '; name="x"', "; name=x",
    f'\n{FIRST}"x"', f'\r\n{FIRST}"x"',
    "\r\ncontent-type: text/plain", "\r\ncontent-length: 4", "\r\nx-y: z", "é", "",
)  # fmt: skip
BORDERS = ("\r\n--b0\r\n",) * 12 + (
    "\r\n--b0 \r\n", "\r\n--b0\t\r\n", "\n--b0\n", "\r\n--b0\n", "\r\n--b0--\r\n", "\r\n--b0x\r\n",
    "--b0\r\n", "\r\n\r\n--b0\r\n", "\r\n--b0--", "\r--b0\r\n", "\r\r\n--b0\r\n",
)  # fmt: skip
OPENINGS = ("--b0\r\n",) * 12 + ("\r\n--b0\r\n", "\n--b0\r\n", "hello\r\n--b0\r\n", " --b0\r\n", "")
ENDINGS = ("\r\n--b0--\r\n",) * 12 + (
    "\r\n--b0--", "\r\n--b0--x", "\r\n--b0", "", "\r\n--b0--\r\n--b0\r\n", "\r\n--b0-",
)  # fmt: skip


@st.composite
def heads(draw: st.DrawFn) -> str:
    """A head as clients write it; sometimes with pieces inserted anywhere."""
    name = draw(st.sampled_from(NAMES))
    head = f'{FIRST}"{name}"'
    if draw(st.integers(0, 3)) == 0:
        head = head.replace('"', "")
    if name == "file":
        head += '; filename="a.wav"\r\ncontent-type: audio/wav'
    for _ in range(draw(st.sampled_from((0, 0, 1, 2, 3)))):
        at = draw(st.integers(0, len(head)) | st.just(len(head)))
        head = head[:at] + draw(st.sampled_from(SPLICES)) + head[at:]
    return head


@st.composite
def forms(draw: st.DrawFn) -> tuple[str, bytes]:
    """A content type and a body."""
    parts = [
        f"{draw(heads())}\r\n\r\n{draw(st.sampled_from(VALUES))}"
        for _ in range(draw(st.integers(1, 4)))
    ]
    body = draw(st.sampled_from(OPENINGS)) + parts[0]
    for part in parts[1:]:
        body += draw(st.sampled_from(BORDERS)) + part
    body += draw(st.sampled_from(ENDINGS))
    return draw(st.sampled_from(KINDS)), body.encode()
