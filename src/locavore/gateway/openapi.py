"""`GET /openapi.json`: what this gateway answers, as OpenAPI 3.1.

Requests are described by the structs that read them, so the document cannot name a field that
nobody reads. Fields that a provider knows and we do not are allowed everywhere and passed on.
"""

from functools import cache

import msgspec

from locavore import __version__
from locavore.core.decision import Decision
from locavore.core.outcome import CallRecord
from locavore.gateway.admin_keys import KeyList, NewKey, Rotation, Secret
from locavore.gateway.request_schemas import Schema, schema_of
from locavore.gateway.verdicts import KeptAnswer, NewVerdict, Verdict
from locavore.wire.anthropic_messages.request import CountRequest, MessagesRequest
from locavore.wire.openai_chat.request import ChatRequest
from locavore.wire.openai_completions.request import CompletionsRequest
from locavore.wire.openai_embeddings.format import EmbeddingsRequest
from locavore.wire.openai_responses.request import ResponsesRequest

_REF = "#/components/schemas/{name}"


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


_TEXT: Schema = {"type": "string"}
_ITEMS: Schema = {"type": "array", "items": {"type": "object"}}
_OPENAI_ERROR = _object(
    "error",
    error=_object(
        "message",
        "type",
        "param",
        "code",
        message=_TEXT,
        type={"type": ["string", "null"]},
        param={"type": ["string", "null"]},
        code={"type": ["string", "integer", "null"]},
    ),
)
_ANTHROPIC_ERROR = _object(
    "type",
    "error",
    type={"const": "error"},
    error=_object("type", "message", type=_TEXT, message=_TEXT),
)
_MODEL = _object("id", "object", id=_TEXT, object={"const": "model"}, owned_by=_TEXT)
_HEALTH = _object("status", status=_TEXT)

_CALLS: dict[str, tuple[type, Schema]] = {
    "/v1/chat/completions": (ChatRequest, _object("choices", choices=_ITEMS)),
    "/v1/completions": (CompletionsRequest, _object("choices", choices=_ITEMS)),
    "/v1/responses": (ResponsesRequest, _object("output", output=_ITEMS)),
    "/v1/embeddings": (EmbeddingsRequest, _object("data", data=_ITEMS)),
    "/v1/messages": (MessagesRequest, _object("content", content=_ITEMS)),
    "/v1/messages/count_tokens": (
        CountRequest,
        _object("input_tokens", input_tokens={"type": "integer"}),
    ),
}
"""Path -> what is read of a request, what is promised of an answer."""
_HELLO = [{"role": "user", "content": "Hello"}]
_EXAMPLES: dict[str, Schema] = {
    "/v1/chat/completions": {"model": "auto", "messages": _HELLO},
    "/v1/completions": {"model": "auto", "prompt": "Hello"},
    "/v1/responses": {"model": "auto", "input": "Hello"},
    "/v1/embeddings": {"model": "auto", "input": "Hello"},
    "/v1/messages": {"model": "auto", "max_tokens": 100, "messages": _HELLO},
    "/v1/messages/count_tokens": {"model": "auto", "messages": _HELLO},
}
_UNSTREAMED = frozenset({"/v1/embeddings", "/v1/messages/count_tokens"})
_STRUCTS = (
    Decision,
    CallRecord,
    KeyList,
    NewKey,
    Rotation,
    Secret,
    NewVerdict,
    Verdict,
    KeptAnswer,
)


@cache
def document() -> bytes:
    """The document as JSON. The same for every gateway of this version."""
    schemas, components = msgspec.json.schema_components(_STRUCTS, ref_template=_REF)
    refs: dict[type, Schema] = dict(zip(_STRUCTS, schemas, strict=True))
    paths = {path: {"post": _call(path)} for path in _CALLS}
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "Locavore", "version": __version__},
        "paths": {**paths, **_others(refs)},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }
    return msgspec.json.encode(whole)


def _call(path: str) -> Schema:
    request, answer = _CALLS[path]
    good = _json(answer)
    if path not in _UNSTREAMED:
        good["content"]["text/event-stream"] = {"schema": _TEXT}
    error = _ANTHROPIC_ERROR if path.startswith("/v1/messages") else _OPENAI_ERROR
    body = schema_of(request) | {"examples": [_EXAMPLES[path]]}
    return _operation({"200": good}, body=body, error=error)


def _others(refs: dict[type, Schema]) -> dict[str, Schema]:
    secret = _json(refs[Secret])
    models = _object("data", data={"type": "array", "items": _MODEL})
    plain = {"description": "Prometheus text", "content": {"text/plain": {"schema": _TEXT}}}
    return {
        "/v1/models": {"get": _operation({"200": _json(models)})},
        "/v1/models/{model}": {"get": _operation({"200": _json(_MODEL)}, names=("model",))},
        "/v1/route": {
            "post": _operation({"200": _json(refs[Decision])}, body=schema_of(ChatRequest))
        },
        "/v1/decisions/{id}": {"get": _operation({"200": _json(refs[CallRecord])}, names=("id",))},
        "/v1/decisions/{id}/verdict": {
            "post": _operation({"200": _json(refs[Verdict])}, body=refs[NewVerdict], names=("id",))
        },
        "/v1/decisions/{id}/shadow": {
            "get": _operation({"200": _json(refs[KeptAnswer])}, names=("id",))
        },
        "/v1/sessions/{session}/labels": {
            "delete": _operation({"204": _NOTHING}, names=("session",))
        },
        "/metrics": {"get": _operation({"200": plain})},
        "/admin/keys": {
            "get": _operation({"200": _json(refs[KeyList])}),
            "post": _operation({"201": secret}, body=refs[NewKey]),
        },
        "/admin/keys/{name}": {"delete": _operation({"204": _NOTHING}, names=("name",))},
        "/admin/keys/{name}/rotate": {
            "post": _operation({"200": secret}, body=refs[Rotation], names=("name",), empty=True)
        },
        "/health/live": {"get": _open({"200": _json(_HEALTH)})},
        "/health/ready": {"get": _open({"200": _json(_HEALTH), "503": _json(_HEALTH)})},
    }


_NOTHING: Schema = {"description": "Done"}


def _json(schema: Schema) -> Schema:
    return {"description": "OK", "content": {"application/json": {"schema": schema}}}


def _open(answers: Schema) -> Schema:
    """An operation that asks for no key."""
    return {"responses": answers, "security": []}


def _operation(
    answers: Schema,
    *,
    body: Schema | None = None,
    error: Schema = _OPENAI_ERROR,
    names: tuple[str, ...] = (),
    empty: bool = False,
) -> Schema:
    """`names`: parameters in the path. `empty`: the body may be left out."""
    made: Schema = {
        "responses": {**answers, "4XX": _json(error), "5XX": _json(error)},
        "security": [{"bearer": []}, {"api_key": []}, {}],
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        made["requestBody"] = {"required": not empty, "content": content}
    if names:
        made["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}
            for name in names
        ]
    return made
