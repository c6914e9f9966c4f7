"""The signed header by which a front end names its end user: open-webui's `X-OpenWebUI-User-Jwt`.

It is signed with a secret that both sides share. Such tokens count only from a key that is marked
for it, and never in the place of a token of an issuer.
"""

from pathlib import Path

from headgate.core.issuers import FrontEnd
from headgate.identity.tokens.claims import check_times
from headgate.identity.tokens.errors import Reason, TokenError
from headgate.identity.tokens.form import read
from headgate.identity.tokens.signature import is_signed_with

MIN_SECRET_BYTES = 32
"""As many as HS256 needs (RFC 7518, 3.2)."""
_MAX_SECRET_BYTES = 4096
_SKEW_S = 30.0


def end_user_of(raw: bytes, front_end: FrontEnd, now_s: float) -> str:
    """The `sub` of a header that was signed with the secret of the front end.

    Raises TokenError. The text is not checked for its characters.
    """
    token = read(raw)
    if not is_signed_with(token, _secret(front_end.secret_file)):
        message = f"The header {front_end.header} is not signed by HS256 with the agreed secret."
        raise TokenError(Reason.SIGNATURE, message)
    check_times(token, now_s, _SKEW_S)
    subject = token.claims.get("sub")
    if not isinstance(subject, str):
        raise TokenError(Reason.CLAIM, f"The token in {front_end.header} has no `sub`.")
    return subject


def _secret(path: Path | None) -> bytes:
    """The secret in the file, without the line's end. The file is read anew, as it may change."""
    try:
        data = b"" if path is None else path.read_bytes()[:_MAX_SECRET_BYTES].strip()
    except OSError:
        data = b""
    if len(data) < MIN_SECRET_BYTES:
        message = (
            "The gateway cannot check who uses this front end: its `acts_for.secret_file` cannot be"
            f" read, or holds fewer than {MIN_SECRET_BYTES} bytes."
        )
        raise TokenError(Reason.SECRET_FILE, message)
    return data
