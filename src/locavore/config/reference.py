"""The list of keys as a JSON Schema for editors and as the tables of the reference page."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from locavore.config.reading import is_table, items, plain
from locavore.config.schema import File, RequireTable, Table


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    schema = msgspec.json.schema(File)
    schema["$defs"] = {name: _plain_schema(table) for name, table in schema["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "locavore.toml",
        **schema,
    }


def _plain_schema(node: Any) -> Any:
    """TOML has no null, and money may be written as a number."""
    if isinstance(node, list):
        return [_plain_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "decimal":
        return {"type": ["string", "number"]}
    kept = {k: _plain_schema(v) for k, v in node.items() if not _is_empty_default(k, v)}
    real = [k for k in kept.get("anyOf", []) if k != {"type": "null"}]
    if len(real) == 1:
        kept = {**{k: v for k, v in kept.items() if k != "anyOf"}, **real[0]}
    return kept


def _is_empty_default(key: str, value: Any) -> bool:
    """No default, or a table's: its keys tell their own."""
    return key == "default" and (value is None or isinstance(value, dict))


def reference() -> str:
    """The tables of docs/reference/configuration.md."""
    parts = [_section("Top level", File, "")]
    for field in msgspec.structs.fields(File):
        kind = _table_of(field.type)
        if kind is not None:
            parts += _sections(kind, _heading(field.name, field.type))
    return "\n".join(parts)


def _sections(kind: type[Any], heading: str) -> list[str]:
    parts = [_section(f"`{heading}`", kind, (kind.__doc__ or "").splitlines()[0])]
    for field in msgspec.structs.fields(kind):
        inner = _table_of(field.type)
        if inner is not None and inner is not RequireTable:
            parts.append(
                _section(f"`{heading}` `{field.name}`", inner, (inner.__doc__ or "").strip())
            )
    return parts


def _heading(name: str, kind: Any) -> str:
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(inner) is tuple:
        return f"[[{name}]]"
    return f"[{name}.<name>]" if get_origin(inner) is dict else f"[{name}]"


def _table_of(kind: Any) -> type[Any] | None:
    found = plain(kind)
    inner = items(found)
    found = plain(inner) if inner is not None else found
    return found if is_table(found) else None


def _section(title: str, kind: type[Any], about: str) -> str:
    rows = [_row(f) for f in msgspec.structs.fields(kind) if title != "Top level" or _is_leaf(f)]
    head = f"## {title}\n\n" + (f"{about}\n\n" if about else "")
    return head + "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _is_leaf(field: msgspec.structs.FieldInfo) -> bool:
    return _table_of(field.type) is None


def _row(field: msgspec.structs.FieldInfo) -> str:
    meta = next((m for m in get_args(field.type)[1:] if isinstance(m, Meta)), Meta())
    default = "required" if field.required else _default(field)
    return f"| `{field.name}` | {_type_name(field.type)} | {default} | {meta.description} |"


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is msgspec.NODEFAULT or value in (None, (), "") or isinstance(value, Table):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _type_name(kind: Any) -> str:
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    origin = get_origin(inner)
    if origin in (Union, UnionType):
        return _type_name(next(k for k in get_args(inner) if k is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{c}`" for c in get_args(inner))
    if origin is tuple:
        return f"list of {_type_name(get_args(inner)[0])}"
    if origin is dict:
        return f"table of {_type_name(get_args(inner)[1])}"
    return "table" if is_table(inner) else _NAMES.get(inner, "decimal")
