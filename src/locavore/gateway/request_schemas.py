"""The structs that read request bodies, as JSON Schema.

msgspec's own generator cannot do it: most of them keep parts of a body as `msgspec.Raw`.
"""

from typing import Any

from msgspec import inspect

Schema = dict[str, Any]
_PLAIN: dict[type[inspect.Type], Schema] = {
    inspect.StrType: {"type": "string"},
    inspect.BoolType: {"type": "boolean"},
    inspect.FloatType: {"type": "number"},
    inspect.NoneType: {"type": "null"},
    inspect.IntType: {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    inspect.DictType: {"type": "object"},
    inspect.AnyType: {},
    inspect.RawType: {},
}


def schema_of(struct: type) -> Schema:
    """Of what is read; any other field may stand beside it. Recursion ends as `object`."""
    return _schema(inspect.type_info(struct), ())


def _schema(kind: inspect.Type, within: tuple[type, ...]) -> Schema:
    if isinstance(kind, inspect.UnionType):
        return {"anyOf": [_schema(part, within) for part in kind.types]}
    if isinstance(kind, inspect.ListType):
        return {"type": "array", "items": _schema(kind.item_type, within)}
    if isinstance(kind, inspect.StructType):
        return _object(kind, within)
    return _PLAIN[type(kind)]


def _object(kind: inspect.StructType, within: tuple[type, ...]) -> Schema:
    if kind.cls in within:
        return {"type": "object"}
    deeper = (*within, kind.cls)
    return {
        "type": "object",
        "required": [field.encode_name for field in kind.fields if field.required],
        "properties": {field.encode_name: _schema(field.type, deeper) for field in kind.fields},
        "additionalProperties": True,
    }
