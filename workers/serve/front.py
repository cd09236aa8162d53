"""What holds for all paths: who may ask, what every answer carries, and what is recorded of a request."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workers.http.bugs import logged_of
from workers.http.problems import ProblemError, problem_response
from workers.http.refusals import framing_problem, is_bearer_of, is_local_host
from workers.messages.headers import TRACEPARENT, TRACESTATE, Trace, next_trace, parse_traceparent
from workers.serve.pipeline_calls import SERVE
from workers.telemetry.metrics import OTHER
from workers.telemetry.recorder import Telemetry

__all__ = ["PATHS", "Front"]

log = logging.getLogger(__name__)

_OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz"})
"""Answered without a token: they say nothing of texts or pools."""
_UNLOGGED: Final = _OPEN_PATHS | {"/metrics"}
PATHS: Final = _UNLOGGED | {"/v1/tag", "/v1/pools", "/openapi.json"}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/=+@-]{1,128}")
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_OTHER_METHOD: Final = "_OTHER"
"""As OpenTelemetry has it: a method is any word of the client's."""
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "el4ner",
    "X-Content-Type-Options": "nosniff",
}


class Front:
    """Who may ask, what every answer carries, and what is recorded of a request. Never of its text."""

    def __init__(self, app: ASGIApp, *, token: str | None, telemetry: Telemetry) -> None:
        self._app = app
        self._token = token
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Nothing is raised."""
        if scope["type"] != "http":
            return
        headers, began = Headers(scope=scope), time.perf_counter()
        began_ns = time.time_ns()
        stated = headers.get("x-request-id", "")
        request_id = stated if _REQUEST_ID.fullmatch(stated) else os.urandom(16).hex()
        carried = tuple(
            (name, value.encode("latin-1")) for name in (TRACEPARENT, TRACESTATE) for value in headers.getlist(name)
        )
        trace = next_trace(carried, os.urandom)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "X-Request-ID": request_id, TRACEPARENT: trace.parent}.items():
                    out[name] = value
            await send(message)

        known = framing_problem(headers) or self._may_ask(scope["path"], headers)
        try:
            if isinstance(known, ProblemError):
                await problem_response(known)(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except Exception as bug:
            extra = {**logged_of(bug), "request_id": request_id, "trace_id": trace.trace_id}
            log.exception("a request cannot be answered", exc_info=False, extra=extra)
        seconds = time.perf_counter() - began
        path = scope["path"] if scope["path"] in PATHS else OTHER
        self._telemetry.metrics.http_request(path, status, seconds)
        # Nobody without a token fills the log.
        if not isinstance(known, ProblemError) and path not in _UNLOGGED and path != OTHER:
            method = scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD
            self._record(method, path, status, seconds, began_ns, trace, carried, request_id)

    def _may_ask(self, path: str, headers: Headers) -> ProblemError | None:
        token = self._token
        if path in _OPEN_PATHS:
            return None
        if token is None:
            if not is_local_host(headers):
                detail = "the Host header is not this machine's own name: ask localhost, or set serve.token"
                return ProblemError(400, "host", detail)
            return None
        if is_bearer_of(headers, token):
            return None
        detail = "expected Authorization: Bearer TOKEN, with the service's serve.token"
        return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="el4ner"'})

    def _record(
        self,
        method: str,
        path: str,
        status: int,
        seconds: float,
        began_ns: int,
        trace: Trace,
        carried: Sequence[tuple[str, bytes | None]],
        request_id: str,
    ) -> None:
        level = logging.WARNING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
        extra = {
            "method": method,
            "path": path,
            "status": status,
            "seconds": round(seconds, 4),
            "request_id": request_id,
            "trace_id": trace.trace_id,
        }
        log.log(level, "request", extra=extra)
        self._telemetry.spans.record(
            f"{method} {path}",
            trace,
            parse_traceparent(carried),
            began_ns,
            time.time_ns(),
            {
                "http.request.method": method,
                "http.route": path,
                "http.response.status_code": status,
                "el4ner.stage": SERVE,
            },
            error=str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None,
            kind="server",
        )
