"""Finding what a person meant: exact names, aliases, spellings; otherwise the nearest names."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from locavore.core.errors import ConfigError

T = TypeVar("T")

_SUFFIX = re.compile(
    r"(?:[-_.:@ ](?:instruct|it|chat|gguf|hf|latest|preview|fp8|fp16|bf16|awq|gptq|mlx|\d+bit"
    r"|i?q\d(?:[-_](?:k|s|m|l|xs|xxs|nl|xl|[01]))*|mxfp4|nvfp4|ud|20\d{6}|20\d\d-\d\d-\d\d))+$"
)


def normalise(name: str) -> str:
    """A spelling-free form: no organisation, no format, date or quantization suffix.

    `Qwen/Qwen3-8B-GGUF`, `ollama/qwen3:8b-q4_K_M` and `qwen3 8b` all become `qwen3-8b`.
    """
    text = name.strip().lower().rsplit("/", 1)[-1]
    text = text.removesuffix(".gguf").replace(":", "-").replace("_", "-").replace(" ", "-")
    if text.startswith("claude-"):
        text = text.replace(".", "-")  # resellers write 4.5, the maker 4-5
    previous = ""
    while text != previous:
        previous, text = text, _SUFFIX.sub("", text.replace("_", "-"))
    return re.sub(r"-+", "-", text).strip("-")


def nearest(name: str, known: Iterable[str], *, count: int = 4) -> list[str]:
    """The `count` known names that look most like `name`, best first."""
    wanted = normalise(name)
    forms: dict[str, str] = {}
    for candidate in known:
        forms.setdefault(normalise(candidate), candidate)
    close = difflib.get_close_matches(wanted, forms, n=count, cutoff=0.45)
    tokens = set(re.findall(r"[a-z]+|\d+(?:\.\d+)?", wanted))
    shared = sorted(
        (form for form in forms if form not in close),
        key=lambda form: -len(tokens & set(re.findall(r"[a-z]+|\d+(?:\.\d+)?", form))),
    )
    return [forms[form] for form in (close + shared)[:count]]


def index(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Spelling -> name, from name -> aliases; a name beats an alias, the first beats later ones."""
    found: dict[str, str] = {}
    for name in names:
        found[name.lower()] = name
        found.setdefault(normalise(name), name)
    for name, aliases in names.items():
        for alias in aliases:
            found.setdefault(alias.lower(), name)
            found.setdefault(normalise(alias), name)
    return found


def find(name: str, known: Mapping[str, T], spellings: Mapping[str, str], *, what: str) -> T:
    """The record called `name`; ConfigError with the nearest names when there is none."""
    key = spellings.get(name.strip().lower()) or spellings.get(normalise(name))
    if key is not None:
        return known[key]
    near = ", ".join(nearest(name, known))
    one = what.removesuffix("s")
    raise ConfigError(
        [f"no {one} is called {name!r}; nearest: {near} (`locavore catalog list {what}`)"]
    )
