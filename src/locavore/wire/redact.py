"""Remove what looks like a secret from an upstream's words before anybody sees them (C104)."""

import re

MAX_MESSAGE_CHARS = 2_000
MAX_BODY_BYTES = 64 * 1024
HIDDEN = "[redacted]"

# Key shapes as the providers publish them; the last group is the part that stays readable.
_SECRETS = re.compile(
    r"""
    \b(?:sk|rk|pk|sess|org|proj|key|gsk|xai|pplx|fw|nvapi|hf|r8|csk|tgp|glpat|ghp|gho|or|ant|tk)
      [-_][A-Za-z0-9_\-*.]{6,}                                   # prefix-secret
    | \bAIza[0-9A-Za-z_\-]{10,}                                   # Google
    | \bya29\.[0-9A-Za-z_\-.]{10,}                                # Google OAuth
    | \b(?:AKIA|ASIA)[0-9A-Z]{12,}                                # AWS
    | \beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?  # JWT
    | \b[0-9a-f]{32,}\b                                           # hexadecimal keys
    """,
    re.VERBOSE,
)
_BEARER = re.compile(r"(?i)\b(bearer|basic|token)(\s+)[A-Za-z0-9_\-.~+/=*]{6,}")
_NAMED = re.compile(
    r"""(?ix)
    ((?:api[-_ ]?key|x-api-key|access[-_]?token|auth(?:orization)?|secret|password|passwd|token|sig
      |signature|key(?:\s+provided)?)
     ["']?\s*[:=]\s*["']?)
    (?!bearer\b|basic\b|\[redacted\])
    [^\s"',;&}\])]{6,}
    """
)
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.\-]*://)[^\s/@:]+:[^\s/@]+@")


def redact(text: str, *, limit_chars: int = MAX_MESSAGE_CHARS) -> str:
    """`text` without keys, tokens and passwords, cut to `limit_chars`."""
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    text = _BEARER.sub(rf"\1\2{HIDDEN}", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    text = _SECRETS.sub(HIDDEN, text)
    if len(text) <= limit_chars:
        return text
    return text[:limit_chars] + "…"


def redact_body(body: bytes) -> bytes:
    """An error body without secrets; nothing of one too long to be an error."""
    if len(body) > MAX_BODY_BYTES:
        return b""
    return redact(body.decode("utf-8", "replace"), limit_chars=MAX_BODY_BYTES).encode()
