"""Everything that is not a hot route: models, dry runs, past decisions, health, metrics.

An ordinary Starlette app on the same port; the data plane hands connections over to it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from locavore.core.access import Grant
from locavore.core.errors import LocavoreError, RequestError
from locavore.core.outcome import CallRecord
from locavore.gateway.admin_keys import AdminKeys
from locavore.gateway.keys import KeyCheck
from locavore.gateway.openapi import document
from locavore.gateway.routes import FORMAT_BY_PATH, envelope
from locavore.gateway.verdicts import Verdicts
from locavore.routing.explaining import explain
from locavore.serving import replying
from locavore.serving.pipeline import Pipeline, sealed
from locavore.wire.formats import FORMATS

if TYPE_CHECKING:
    from locavore.ledger.keys import KeyStore
    from locavore.ledger.verdicts import VerdictStore

Endpoint = Callable[[HttpRequest], Awaitable[Response]]
MAX_BODY_BYTES = 32 << 20


class Admin:
    """The endpoints, over one worker's pipeline."""

    def __init__(
        self,
        pipeline: Pipeline,
        keys: Callable[[], KeyCheck],
        *,
        find: Callable[[str], CallRecord | None],
        exposition: Callable[[], str],
        key_store: "Callable[[], KeyStore]",
        home: Path,
        verdict_store: "Callable[[], VerdictStore]",
        degraded: Callable[[], list[str]] = list,
    ) -> None:
        """`key_store` and `verdict_store` open what is stored; called on another thread, once per
        request.

        `degraded`: stores that are lost while calls are served; one line each.
        """
        self._pipeline = pipeline
        self._keys = keys
        self._find = find
        self._exposition = exposition
        self._degraded = degraded
        self._admin_keys = AdminKeys(key_store, self._grant)
        self._verdicts = Verdicts(home, verdict_store, self._grant)

    def app(self) -> Starlette:
        guarded = [
            ("/v1/models", self.models, "GET"),
            ("/v1/models/{model:path}", self.model, "GET"),
            ("/v1/route", self.route, "POST"),
            ("/v1/decisions/{id}", self.decision, "GET"),
            ("/v1/decisions/{id}/verdict", self._verdicts.give, "POST"),
            ("/v1/decisions/{id}/shadow", self._verdicts.shadow, "GET"),
            ("/v1/sessions/{session}/labels", self.reset_session, "DELETE"),
            ("/metrics", self.metrics, "GET"),
            ("/admin/keys", self._admin_keys.list, "GET"),
            ("/admin/keys", self._admin_keys.create, "POST"),
            ("/admin/keys/{name}", self._admin_keys.revoke, "DELETE"),
            ("/admin/keys/{name}/rotate", self._admin_keys.rotate, "POST"),
        ]
        open_ = [
            ("/", self.index),
            ("/openapi.json", self.openapi),
            ("/health", self.live),
            ("/health/live", self.live),
            ("/health/liveliness", self.live),
            ("/health/liveness", self.live),
            ("/health/ready", self.ready),
            ("/health/readiness", self.ready),
        ]
        routes = [Route(path, self._guard(do), methods=[method]) for path, do, method in guarded]
        routes += [Route(path, do, methods=["GET"]) for path, do in open_]
        return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_allowed})

    def _grant(self, http: HttpRequest) -> Grant | None:
        return envelope(http.headers.raw, self._keys()).grant

    def _guard(self, endpoint: Endpoint) -> Endpoint:
        """Ask for a key, and turn our errors into the client's."""

        async def guarded(http: HttpRequest) -> Response:
            try:
                envelope(http.headers.raw, self._keys())
                return await endpoint(http)
            except LocavoreError as error:
                return self._error(error)

        return guarded

    def _error(self, error: LocavoreError) -> Response:
        status, headers, body = replying.error_for("openai_chat", error, self._pipeline.next_id())
        named = {name.decode(): value.decode() for name, value in headers}
        return Response(body, status, named)

    # -- what can be reached ------------------------------------------------------------------

    async def models(self, _http: HttpRequest) -> Response:
        """OpenAI's list, with what we know beside it."""
        return JSONResponse({"object": "list", "data": self._pipeline.state.models()})

    async def model(self, http: HttpRequest) -> Response:
        name = http.path_params["model"]
        for entry in self._pipeline.state.models():
            if entry["id"] == name:
                return JSONResponse(entry)
        raise RequestError(
            f"no model {name!r} here; GET /v1/models lists them",
            status=404,
            code="model_not_found",
            param="model",
        )

    # -- decisions ----------------------------------------------------------------------------

    async def route(self, http: HttpRequest) -> Response:
        """The decision for the body of a chat call, without calling anything (C111).

        `?format=` names another wire format, e.g. `anthropic_messages`; paths are accepted too.
        """
        named = http.query_params.get("format", "openai_chat")
        request_format = FORMAT_BY_PATH.get(named.encode(), named)
        if request_format not in FORMATS:
            raise RequestError(
                f"unknown format {named!r}; known: {', '.join(FORMATS)}", param="format"
            )
        body = await _body(http)
        request = FORMATS[request_format].request(body)
        sealed_request = sealed(request, envelope(http.headers.raw, self._keys()))
        decision = await self._pipeline.decide(sealed_request)
        return Response(msgspec.json.encode(decision), 200, _JSON)

    async def decision(self, http: HttpRequest) -> Response:
        id_ = http.path_params["id"]
        record = await asyncio.to_thread(self._find, id_)
        if record is None:
            raise RequestError(
                f"no decision {id_!r}; a call is listed once it has finished",
                status=404,
                code="decision_not_found",
            )
        told = msgspec.to_builtins(record) | {"explanation": explain(record.decision)}
        return Response(msgspec.json.encode(told), 200, _JSON)

    async def reset_session(self, http: HttpRequest) -> Response:
        """Forget the labels that earlier calls put on one of the caller's sessions (C92)."""
        grant = self._grant(http)
        self._pipeline.reset_session(grant, http.path_params["session"])
        return Response(status_code=204)

    # -- health and metrics -------------------------------------------------------------------

    async def index(self, _http: HttpRequest) -> Response:
        return JSONResponse(
            {
                "name": "locavore",
                "endpoints": sorted([p.decode() for p in FORMAT_BY_PATH] + _ENDPOINTS),
            }
        )

    async def openapi(self, _http: HttpRequest) -> Response:
        return Response(document(), 200, _JSON)

    async def live(self, _http: HttpRequest) -> Response:
        """The process answers. Nothing else is asked."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _http: HttpRequest) -> Response:
        """Whether a call could be served now: a backend is left and the journal can be written.

        Asks no upstream, paid or not.
        """
        problems = self._pipeline.problems()
        status = 503 if problems else 200
        body = {
            "status": "not_ready" if problems else "ready",
            "problems": problems,
            "degraded": self._degraded(),
        }
        return JSONResponse(body, status)

    async def metrics(self, _http: HttpRequest) -> Response:
        text = await asyncio.to_thread(self._exposition)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


_JSON = {"content-type": "application/json"}
_ENDPOINTS = [
    "/v1/models",
    "/v1/route",
    "/v1/decisions/{id}",
    "/v1/decisions/{id}/verdict",
    "/v1/decisions/{id}/shadow",
    "/v1/sessions/{session}/labels",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/admin/keys",
    "/admin/keys/{name}",
    "/admin/keys/{name}/rotate",
    "/openapi.json",
]


async def _body(http: HttpRequest) -> bytes:
    body = b""
    async for chunk in http.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestError(f"the body is over {MAX_BODY_BYTES} bytes", status=413)
    return body


async def _not_found(http: HttpRequest, _error: Exception) -> Response:
    message = f"no such path: {http.url.path!r}; GET / lists the endpoints"
    return _plain_error(404, message, "not_found")


async def _not_allowed(http: HttpRequest, _error: Exception) -> Response:
    return _plain_error(405, f"{http.method} is not allowed here", "method_not_allowed")


def _plain_error(status: int, message: str, code: str) -> Response:
    error: dict[str, Any] = {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": code,
    }
    return Response(json.dumps({"error": error}), status, _JSON)
