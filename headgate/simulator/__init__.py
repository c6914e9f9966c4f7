"""A vLLM that needs no GPU: the API, usage, LoRA, metrics and failures of vLLM 0.32.

Read `app.py` first: every route, top to bottom. A request is read (`requests.py`), planned
(`generate.py`), written in its API's words (`chat.py`, `completions.py`, `responses.py`,
`messages.py`, `embeddings.py`) and played at a token's pace (`engine.py`).
"""
