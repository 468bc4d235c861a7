"""What can be checked about an answer without another model: form, words, sums, code.

A check that finds nothing wrong proves nothing; one that finds something ends the matter.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from locavore.core.events import FinishReason
from locavore.core.request import Conversation
from locavore.routing.estimators.signals import Signals

_CHECKED_CHARS = 40_000
"""Longer texts are checked for presence only: a check must not cost what an answer costs."""
_CANNOT = r"(?:can(?:no|['’])t|cannot|(?:am|are|'m|’m) (?:not able|unable)|won['’]t)"
_REFUSAL = re.compile(
    rf"^\W*(?:(?:(?:i['’]?m|i am) )?(?:very )?sorry\b[^.]{{0,40}}\b{_CANNOT}|i {_CANNOT} "
    rf"|i['’]m (?:not able|unable) to|as an ai\b|i (?:do not|don['’]t) know\b"
    rf"|unfortunately,? i {_CANNOT})",
    re.IGNORECASE,
)
_CODE = re.compile(r"```(?:python|py)\s*\n(.*?)```", re.DOTALL)
_SUM = re.compile(
    r"(?<![\d.,^*/+\-×])(\d{1,9}(?:\.\d{1,6})?)\s*([-+*/×])\s*(\d{1,9}(?:\.\d{1,6})?)"
    r"\s*=\s*(-?\d{1,18}(?:\.\d{1,9})?)(?![\d.,]*\d)"
)
_LAST_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_OPTION = re.compile(r"\banswer(?: is)?:?\s*\(?([A-J])\)?(?![a-z])", re.IGNORECASE)


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    arguments: str
    """JSON text as the model wrote it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One finished call, folded from its events."""

    backend: str
    text: str = ""
    tool_calls: tuple[ToolUse, ...] = ()
    finish: FinishReason | None = None
    refused: bool = False
    """The protocol itself said so."""
    output_tokens: int = 0
    mean_logprob: float | None = None
    seconds: float = 0.0
    failed: str = ""
    """Why there is no answer: a fault, or `late`."""


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What the request asked the answer to be."""

    json: bool = False
    schema: Mapping[str, Any] | None = None
    tools: Mapping[str, Mapping[str, Any]] = {}
    """Tool name -> JSON schema of its arguments."""
    must_call: bool = False


def contract_of(conversation: Conversation) -> Contract:
    """What a conversation asks of its answer."""
    output, choice = conversation.output, conversation.tool_choice
    return Contract(
        json=output.kind != "text",
        schema=output.schema if output.kind == "json_schema" else None,
        tools={tool.name: tool.parameters for tool in conversation.tools},
        must_call=choice is not None and choice.mode in ("required", "named"),
    )


def faults(answer: Answer, contract: Contract) -> list[str]:
    """Everything that is wrong with an answer by its form; empty: nothing was found."""
    if answer.failed:
        return [answer.failed]
    found = []
    if answer.refused or answer.finish in (FinishReason.REFUSAL, FinishReason.CONTENT_FILTER):
        found.append("refused")
    if answer.finish is FinishReason.LENGTH:
        found.append("cut_off")
    if not answer.text.strip() and not answer.tool_calls:
        return [*found, "empty"]
    found += _tool_faults(answer.tool_calls, contract)
    text = answer.text
    if len(text) > _CHECKED_CHARS:
        return found
    if not answer.tool_calls:
        found += _text_faults(text, contract)
    return found


def _text_faults(text: str, contract: Contract) -> list[str]:
    if contract.json or contract.schema is not None:
        return _json_faults(text, contract.schema)
    found = []
    if _REFUSAL.match(text):
        found.append("refused")
    if not all(_parses(code) for code in _CODE.findall(text)):
        found.append("code_does_not_parse")
    if not all(_adds_up(*parts) for parts in _SUM.findall(text)):
        found.append("wrong_sum")
    return found


def _json_faults(text: str, schema: Mapping[str, Any] | None) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ["not_json"]
    return ["against_schema"] if schema is not None and not fits(value, schema) else []


def _tool_faults(calls: Sequence[ToolUse], contract: Contract) -> list[str]:
    if contract.must_call and not calls:
        return ["no_tool_call"]
    for call in calls:
        if call.name not in contract.tools:
            return ["unknown_tool"]
        if _json_faults(call.arguments or "{}", contract.tools[call.name]):
            return ["bad_arguments"]
    return []


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Types, enum, required, properties, additionalProperties and items of a JSON schema.

    What it does not know (references, patterns, combinations) it lets pass.
    """
    kinds = schema.get("type")
    if kinds is not None and not _is_a(value, kinds if isinstance(kinds, list) else [kinds]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        return _object_fits(value, schema)
    items = schema.get("items")
    if isinstance(value, list) and isinstance(items, dict):
        return all(fits(v, items) for v in value)
    return True


def _is_a(value: Any, kinds: Sequence[str]) -> bool:
    for kind in kinds:
        if kind not in _TYPES:
            return True
        if isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)):
            return True
    return False


def _object_fits(value: dict[str, Any], schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties", {})
    if any(name not in value for name in schema.get("required", ())):
        return False
    if schema.get("additionalProperties") is False and set(value) - set(properties):
        return False
    return all(fits(value[n], s) for n, s in properties.items() if n in value)


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _adds_up(a: str, sign: str, b: str, result: str) -> bool:
    x, y, z = float(a), float(b), float(result)
    if sign == "/" and y == 0:
        return False
    exact = {"+": x + y, "-": x - y, "*": x * y, "×": x * y, "/": x / y if y else 0.0}[sign]
    places = len(result.partition(".")[2])
    return abs(exact - z) <= 0.51 * 10.0**-places if places or sign == "/" else exact == z


def answer_class(text: str) -> str:
    """What two answers must share to be the same answer; empty: there is none.

    JSON by value, a boxed or lettered answer, the last number, else the words.
    """
    text = text.strip()[-_CHECKED_CHARS:]
    if text[:1] in "{[":
        try:
            return json.dumps(json.loads(text), sort_keys=True)
        except (ValueError, RecursionError):
            pass
    for pattern in (_BOXED, _OPTION):
        found = pattern.findall(text)
        if found:
            return str(found[-1]).strip().lower()
    numbers = _LAST_NUMBER.findall(text)
    if numbers:
        return f"{float(numbers[-1].replace(',', '')):.10g}"
    return " ".join(re.findall(r"\w+", text.lower()))


def signals_of(
    answer: Answer, contract: Contract, others: Sequence[Answer] = ()
) -> tuple[Signals, list[str]]:
    """What the estimator is told of an answer, and the faults that were found."""
    wrong = faults(answer, contract)
    agreement = None
    if others:
        mine = answer_class(answer.text)
        same = [bool(mine) and not o.failed and answer_class(o.text) == mine for o in others]
        agreement = sum(same) / len(same)
    return (
        Signals(
            agreement=agreement,
            no_answer=bool(wrong),
            out_tok=answer.output_tokens,
            mean_logprob=answer.mean_logprob,
        ),
        wrong,
    )
