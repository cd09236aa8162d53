"""What holds for all paths of the page: who may ask, that no other site asked in their name, and what every answer
carries."""

from __future__ import annotations

import hmac
import logging
import time
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workers.http.bugs import logged_of
from workers.http.problems import ProblemError, problem_response
from workers.http.refusals import framing_problem
from workers.ui.visitors import Visitor, VisitorRole, Visitors

__all__ = ["FORGERY_HEADER", "LOGIN_PATH", "PageFront", "visitor_of"]

log = logging.getLogger(__name__)

FORGERY_HEADER: Final = "x-el4ner-page"
LOGIN_PATH: Final = "/api/login"
_PROBE: Final = "/livez"
_OPEN: Final = frozenset({"/", "/favicon.ico", LOGIN_PATH})
"""Answered to anybody who reaches us, as the static files are: nothing in it is of the stream."""
_SAFE: Final = frozenset({"GET", "HEAD"})
_HEADERS: Final = {
    # Nothing from elsewhere, nothing inline, and no text becomes HTML: whatever a document holds, it is shown.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Server": "el4ner",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
STATIC_PREFIX: Final = "/static/"


class PageFront:
    """Nothing is raised, and nothing of a text or a token is logged."""

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self._app = app
        self._visitors = visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        headers, began, status = Headers(scope=scope), time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    out[name] = value
                out.setdefault("Cache-Control", "no-store")
            await send(message)

        checked: Visitor | ProblemError | None = None
        try:
            checked = self._check(scope, headers)
            if isinstance(checked, ProblemError):
                await problem_response(checked)(scope, receive, answer)
                return
            scope["state"] = {**scope.get("state", {}), "visitor": checked}
            await self._app(scope, receive, answer)
        except TimeoutError:
            pass  # a browser that does not read its events
        except Exception as bug:
            log.exception("a request cannot be answered", exc_info=False, extra=logged_of(bug))
            if not status:
                await problem_response(ProblemError(500, "bug", "a bug; the service's log has it"))(
                    scope, receive, answer
                )
        if checked is not None and scope["method"] not in _SAFE:
            extra = {"path": scope["path"], "status": status, "seconds": round(time.perf_counter() - began, 4)}
            log.info("request", extra=extra)

    def _check(self, scope: Scope, headers: Headers) -> Visitor | ProblemError | None:
        path = scope["path"]
        if (problem := framing_problem(headers)) is not None:
            return problem
        if path == _PROBE:
            return None
        if not self._visitors.host_is_right(headers):
            detail = "the Host header is no name of this page: ask localhost, or set ui.hosts"
            return ProblemError(HTTPStatus.BAD_REQUEST, "host", detail)
        client = scope.get("client")
        visitor = self._visitors.who(headers, "" if client is None else client[0])
        if visitor is None and not (path in _OPEN or path.startswith(STATIC_PREFIX)):
            detail = "show a token (log in, or Authorization: Bearer TOKEN)"
            if not self._visitors.takes_tokens:
                detail = "the proxy did not say who asks, or it is none of ui.proxy_addresses"
            return ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", detail)
        if scope["method"] not in _SAFE and (problem := self._forged(headers, visitor)) is not None:
            return problem
        return visitor

    def _forged(self, headers: Headers, visitor: Visitor | None) -> ProblemError | None:
        """Why the request may be another site's, made by a visitor's browser; None: it is not."""
        if visitor is not None and visitor.forgery_token is None:
            return None
        if not self._visitors.origin_is_right(headers):
            return ProblemError(HTTPStatus.FORBIDDEN, "cross-site", "the request does not come from this page")
        if visitor is None or visitor.forgery_token is None:
            return None  # the login, before which there is nothing to know
        shown = headers.get(FORGERY_HEADER, "").encode("latin-1", "replace")
        if not hmac.compare_digest(shown, visitor.forgery_token.encode()):
            detail = "the page is older than the session: load it again"
            return ProblemError(HTTPStatus.FORBIDDEN, "stale-page", detail)
        return None


def visitor_of(scope_state: Any, needs: VisitorRole = VisitorRole.READER) -> Visitor:
    """Whose request it is (``request.state``).

    Raises:
        ProblemError: 403: they may not do that.
    """
    visitor: Visitor = scope_state.visitor
    if needs is VisitorRole.TEACHER and visitor.role is not VisitorRole.TEACHER:
        raise ProblemError(HTTPStatus.FORBIDDEN, "needs-teacher", "this needs the role of a teacher")
    return visitor
