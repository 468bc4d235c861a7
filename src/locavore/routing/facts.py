"""What can be said about a request without any model's help, in microseconds.

The task class is judged by the user's ask, not by the instructions an agent's harness wraps around
it: a harness sends kilobytes of "you are a coding assistant" with every "thanks".
"""

import re
from functools import lru_cache

from locavore.core.backend import Capability
from locavore.core.decision import Facts
from locavore.core.estimate import Estimate
from locavore.core.policy import Policy, check_labels
from locavore.core.request import Request
from locavore.routing.asks import Asks, shortened
from locavore.routing.rules import matching

TASKS = (
    "agent",
    "chat",
    "classify",
    "code",
    "embed",
    "extract",
    "math",
    "qa",
    "reasoning",
    "rewrite",
    "summarize",
    "translate",
)
"""Each but `embed` has a benchmark in `catalog/data/tasks.toml`."""
UNREAD = "unread"
"""Task of a call whose ask nobody had to read: the client named the model."""

ASK_CHARS = 600
"""For its task, an ask is read up to here, from its start and its end."""

# UTF-8 bytes per token: (mean, fewest, most) over o200k, cl100k, Qwen2.5 and Llama 3, measured by
# benchmarks/routing/tokens; fewest are a fifth lower for tokenizers that were not measured. `most`
# for ASCII allows for indentation, which long tokens swallow.
_BYTES_PER_TOKEN: dict[str, tuple[float, float, float]] = {
    "ascii": (4.2, 2.6, 10.0),
    "Latn": (3.8, 2.2, 8.0),
    "Cyrl": (5.0, 2.5, 9.0),
    "Grek": (3.5, 1.6, 7.0),
    "Arab": (4.2, 2.0, 8.0),
    "Hebr": (3.0, 1.4, 7.0),
    "Deva": (5.0, 2.2, 11.0),
    "Thai": (5.0, 2.3, 8.0),
    "Hang": (3.8, 2.1, 6.0),
    "Jpan": (3.9, 2.2, 6.0),
    "Hani": (3.5, 1.7, 6.0),
    "mixed": (3.6, 1.4, 10.0),
}
_DENSE = (1.5, 1.0)
"""(mean, fewest) for figures, hashes and base64: a token may be a single digit."""
_DIGITS = b"0123456789"
_PLAIN_DIGITS, _DENSE_DIGITS = 0.05, 0.20
"""Share of digits up to which text is plain, and from which on it is dense."""
_DENSITY_SAMPLE = 256
_TEMPLATE_TOKENS = 16
"""A chat template's own tokens for a short conversation."""
_IMAGE_TOKENS = (800, 4, 1700)
"""(mean, fewest, most) per image: OpenAI low detail is 85, Anthropic's most is about 1600, and
Qwen-VL counts as few as 4 for a tiny picture."""


def measure(
    request: Request,
    policy: Policy,
    *,
    asks: Asks | None = None,
    session_labels: frozenset[str] = frozenset(),
) -> Facts:
    """Facts of a request. Raises RequestError (400) for a label the policy does not know.

    `asks` are the user's words; None leaves out task and script: a client that named a model does
    not pay for reading them.
    """
    labels = request.labels | session_labels if session_labels else request.labels
    if labels:
        check_labels(labels, policy.labels)
    task, script = UNREAD, None
    if asks is not None:
        task, script = task_of(request, asks), script_of(shortened(asks.last, ASK_CHARS))
    rules: tuple[str, ...] = ()
    if policy.rules:
        rules, labels = matching(
            policy.rules, labels=labels, task=task, model=request.model, key=request.key_name
        )
    return Facts(
        input_tokens=input_tokens(request, script),
        output_tokens=request.max_output_tokens or policy.default_output_tokens,
        task=task,
        language=script,
        labels=labels,
        rules=rules,
    )


def input_tokens(request: Request, script: str | None) -> Estimate:
    """Prompt tokens from bytes: an interval over tokenizers, `high` on the safe side.

    `script` is that of the ask; None: the ask was not read, and neither is the body's density.
    """
    mean, fewest, most = _BYTES_PER_TOKEN["ascii" if request.body.isascii() else script or "mixed"]
    if script is not None:
        dense = _density(request.body)
        mean -= (mean - _DENSE[0]) * dense
        fewest -= (fewest - _DENSE[1]) * dense
    size = request.prompt_bytes
    images = request.images
    if not images:
        return Estimate(
            mean=size / mean + _TEMPLATE_TOKENS,
            low=size / most,
            high=size / fewest + _TEMPLATE_TOKENS,
            source="bytes",
            unit="tokens",
        )
    return Estimate(
        mean=size / mean + _TEMPLATE_TOKENS + images * _IMAGE_TOKENS[0],
        low=size / most + images * _IMAGE_TOKENS[1],
        high=size / fewest + _TEMPLATE_TOKENS + images * _IMAGE_TOKENS[2],
        source="bytes",
        unit="tokens",
    )


def _density(body: bytes) -> float:
    """0 for prose and code to 1 for figures, from the share of digits in a sample."""
    sample = body[:: len(body) // _DENSITY_SAMPLE + 1]
    digits = 1.0 - len(sample.translate(None, _DIGITS)) / max(1, len(sample))
    return min(1.0, max(0.0, (digits - _PLAIN_DIGITS) / (_DENSE_DIGITS - _PLAIN_DIGITS)))


# The task ----------------------------------------------------------------------------------------

FOLLOW_UP_CHARS = 200
_VAGUE = ("chat", "qa")
"""What "go on", "thanks" and "why?" are by themselves."""


def task_of(request: Request, asks: Asks) -> str:
    """Task class by local rules: `embed` and `agent` by the request, the others by the ask.

    A short ask that says nothing of its own goes on with what was asked before it.
    """
    if request.format == "openai_embeddings":
        return "embed"
    task = task_of_ask(shortened(asks.last, ASK_CHARS))
    if task in _VAGUE and asks.earlier and len(asks.last) <= FOLLOW_UP_CHARS:
        for words in reversed(asks.earlier):
            before = _task_before(shortened(words, ASK_CHARS))
            if before not in _VAGUE:
                task = before
                break
    if Capability.TOOLS in request.needs and task in ("chat", "code", "qa"):
        return "agent"
    return task


# Words that tell a task, in the order that decides between tasks: a verb of command says more than
# what the text it is applied to is about.
_TASK_WORDS: tuple[tuple[str, str], ...] = (
    (
        "code",
        "python javascript typescript golang sql bash regex dockerfile html css pytest unittest "
        "refactor debug stacktrace traceback compiler codebase",
    ),
    (
        "translate",
        "translate translates translated translation traduce traduis traduire traducir übersetze "
        "übersetzen переведи перевод",
    ),
    (
        "summarize",
        "summarize summarise summary summarizes summarized summarizing tldr recap takeaways "
        "zusammenfassen zusammenfassung",
    ),
    ("classify", "classify classification categorize categorise sentiment spam"),
    ("extract", "extract extracts extracting extraction entities"),
    ("rewrite", "rewrite rephrase paraphrase proofread reword grammar spelling"),
    (
        "code",
        "code rust java compile commit rebase repository endpoint function const async lambda json",
    ),
    (
        "math",
        "solve calculate compute integral derivative equation theorem probability remainder "
        "percent percentage sqrt sum modulo",
    ),
    ("reasoning", "puzzle riddle deduce hypothesis physics chemistry biology quantum molecule"),
)
_BY_WORD = {
    word: (rank, task) for rank, (task, words) in enumerate(_TASK_WORDS) for word in words.split()
}
_APART = str.maketrans(dict.fromkeys("!\"'(),.:;?[]{}<>*_/\\|", " "))
"""What ends a word: translating and splitting costs a third of a regular expression."""
_SIGNS = (("```", "code"), ("#include", "code"), ("$$", "math"), ("\\frac", "math"))
_SIGNS_HAN = (
    ("翻译", "translate"),
    ("翻訳", "translate"),
    ("总结", "summarize"),
    ("要約", "summarize"),
)
# Searched at most once per call; a pattern that begins with a literal is found fastest.
_FILE_NAME = re.compile(r"\.(?:py|js|ts|tsx|rs|go|java|c|cpp|h|rb|sh|sql|toml|ya?ml)\b")
_ARITHMETIC = re.compile(r"\d\s*[-+*/^=×÷]\s*\d")
_QUESTIONS = ("what ", "who ", "when ", "where ", "which ", "why ", "how ", "is ", "are ", "does ")
_DIGIT = re.compile(r"\d")


@lru_cache(maxsize=512)
def _task_before(ask: str) -> str:
    """Each turn repeats the asks before it."""
    return task_of_ask(ask)


def task_of_ask(ask: str) -> str:
    """Task class of the user's words; `chat` when nothing else is told."""
    text = ask.lower()
    words = text.translate(_APART).split()
    if not _BY_WORD.keys().isdisjoint(words):
        return min(_BY_WORD[word] for word in words if word in _BY_WORD)[1]
    signs = _SIGNS if text.isascii() else _SIGNS + _SIGNS_HAN
    for sign, task in signs:
        if sign in text:
            return task
    return _by_form(text)


def _by_form(text: str) -> str:
    if _FILE_NAME.search(text):
        return "code"
    if _DIGIT.search(text):
        counts = "how many" in text or "how much" in text
        if counts or _ARITHMETIC.search(text):
            return "math"
    return "qa" if "?" in text and text.startswith(_QUESTIONS) else "chat"


_SCRIPTS: tuple[tuple[int, int, str], ...] = (
    (0x0370, 0x03FF, "Grek"),
    (0x0400, 0x052F, "Cyrl"),
    (0x0590, 0x05FF, "Hebr"),
    (0x0600, 0x06FF, "Arab"),
    (0x0900, 0x097F, "Deva"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x3040, 0x30FF, "Jpan"),
    (0x4E00, 0x9FFF, "Hani"),
    (0xAC00, 0xD7AF, "Hang"),
)
_SCRIPT_SAMPLE = 64


def script_of(text: str) -> str:
    """ISO 15924 code of the script most of a sample is written in; `Latn` for what is left."""
    if text.isascii():
        return "Latn"
    step = max(1, len(text) // _SCRIPT_SAMPLE)
    counts: dict[str, int] = {}
    for char in text[::step]:
        if char > "\u02ff":
            script = _script(ord(char))
            counts[script] = counts.get(script, 0) + 1
        elif char.isalpha():
            counts["Latn"] = counts.get("Latn", 0) + 1
    if counts.get("Jpan"):  # Japanese mixes kana with Han
        counts["Jpan"] += counts.pop("Hani", 0)
    return max(counts, key=lambda s: (counts[s], s)) if counts else "Latn"


def _script(code: int) -> str:
    return next((name for low, high, name in _SCRIPTS if low <= code <= high), "Latn")
