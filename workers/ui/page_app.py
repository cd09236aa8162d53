"""The page's paths.

GET  /                       the page; /static/… its parts
GET  /api/session            who asks, and what the page can show
POST /api/login, /api/logout
GET  /api/events             server-sent events: the broker's state, and documents as they come
GET  /api/trends             names that are mentioned most, and more than before
GET  /api/mentions           the latest documents that mention a name
GET  /api/letters, /api/letters/ID              dead letters
POST /api/letters/plan, /api/letters/replay     what would be sent again; send it
GET  /api/health             the workers and their lag
GET  /api/entities, …        entities over all documents; merging and splitting them: entity_lookups has the paths
GET, POST /api/lesson        a document's sentences; teach the pool one of them
GET  /api/queue              what to look at first; POST /api/queue/dismiss: nobody needs to look at that
GET  /api/pools, POST /api/try                  by `el4ner serve`
GET  /livez
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from typing_extensions import override

from el4ner.errors import El4nerError
from workers.http.problems import ProblemError, problem_response
from workers.ui.entity_lookups import entity_routes
from workers.ui.event_stream import EventStream
from workers.ui.live_filter import read_filter
from workers.ui.page_front import LOGIN_PATH, STATIC_PREFIX, PageFront, visitor_of
from workers.ui.page_lookups import lookup_routes
from workers.ui.page_state import PageState, json_body, json_response
from workers.ui.shown_documents import shown_string
from workers.ui.visitors import COOKIE

__all__ = ["page_app"]

_STATIC: Final = Path(__file__).parent / "static"
_TICK_SECONDS: Final = 0.5
_STATUS_SECONDS: Final = 1.0


def page_app(state: PageState) -> ASGIApp:
    """The application. Nothing that it raises reaches the server."""

    def api(path: str, call: Any, method: str = "GET") -> Route:
        return Route(path, partial(call, state=state), methods=[method])

    app = Starlette(
        routes=[
            Route("/", _index),
            Route("/favicon.ico", _icon),
            Route("/livez", _livez),
            Mount(STATIC_PREFIX.rstrip("/"), _Parts(directory=_STATIC)),
            api("/api/session", _session),
            api(LOGIN_PATH, _login, "POST"),
            api("/api/logout", _logout, "POST"),
            api("/api/events", _events),
            *lookup_routes(state),
            *entity_routes(state),
        ],
        exception_handlers={HTTPException: _http_problem, El4nerError: _own_problem, Exception: _bug},
    )
    app.router.redirect_slashes = False
    return PageFront(app, state.visitors)


# --- the page itself --------------------------------------------------------------------------------------------------


class _Parts(StaticFiles):
    @override
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "no-cache"  # asked for again, and answered by 304
        return response


async def _index(_request: Request) -> Response:
    return FileResponse(_STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def _icon(_request: Request) -> Response:
    return FileResponse(_STATIC / "icon.svg")


async def _livez(_request: Request) -> Response:
    return json_response({"status": "ok"})


# --- who asks ---------------------------------------------------------------------------------------------------------


async def _session(request: Request, state: PageState) -> Response:
    visitor = visitor_of(request.state)
    return json_response(
        {
            "name": shown_string(visitor.name),
            "role": visitor.role.value,
            "page_token": visitor.forgery_token,
            "may_leave": state.visitors.takes_tokens,
            "can_try": state.tried.is_possible,
            "has_entities": state.entities.is_enabled,
            "live_documents": state.settings.ui.live_documents,
        }
    )


async def _login(request: Request, state: PageState) -> Response:
    body = await json_body(request)
    token = body.get("token")
    session = state.visitors.begin(token) if isinstance(token, str) else None
    if session is None:
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", "this is no token of this page")
    response = json_response({})
    secure = request.headers.get("origin", "").startswith("https://")
    response.set_cookie(COOKIE, session, httponly=True, samesite="strict", secure=secure, path="/")
    return response


async def _logout(request: Request, state: PageState) -> Response:
    state.visitors.end(request.headers)
    response = json_response({})
    response.delete_cookie(COOKIE, path="/")
    return response


# --- live -------------------------------------------------------------------------------------------------------------


async def _events(request: Request, state: PageState) -> Any:
    visitor_of(request.state)
    query = request.query_params
    client = "" if request.client is None else request.client.host
    wanted = None
    documents = query.get("documents")
    if documents == "yes":
        wanted = read_filter(query, {name: query.getlist(name) for name in ("type", "pool", "status")})

    async def events() -> AsyncGenerator[tuple[str, Any], None]:
        viewer = state.feed.view(wanted) if documents in ("yes", "deleted") else None
        told_at = -_STATUS_SECONDS
        try:
            while not state.stopping.is_set():
                if (now := time.monotonic()) - told_at >= _STATUS_SECONDS:
                    told_at = now
                    if state.visitors.who(request.headers, client) is None:
                        return  # the session is over
                    yield "status", _status(state)
                if viewer is not None and (sent := viewer.take()) is not None:
                    yield "documents", sent
                try:
                    await asyncio.wait_for(state.stopping.wait(), _TICK_SECONDS)
                except TimeoutError:
                    continue
        finally:
            if viewer is not None:
                state.feed.leave(viewer)

    return EventStream(events(), send_seconds=state.settings.ui.read_seconds)


def _status(state: PageState) -> dict[str, Any]:
    feed, broker = state.feed, state.followed.broker
    return {
        "broker": broker.state,
        "since": broker.since,
        "detail": broker.detail,
        "rate": round(feed.rate(state.clock()), 1),
        "documents": feed.documents,
        "skipped": feed.skipped,
        "unreadable": feed.unreadable,
        "behind": state.followed.behind,
        "types": list(feed.types),
        "pools": list(feed.pools),
    }


async def _own_problem(_request: Request, error: Exception) -> Response:
    if isinstance(error, ProblemError):
        return problem_response(error)
    assert isinstance(error, El4nerError)
    return problem_response(ProblemError(HTTPStatus.BAD_GATEWAY, error.code, str(error)))


async def _http_problem(_request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or method."""
    assert isinstance(error, HTTPException)
    code = "no-such-path" if error.status_code == HTTPStatus.NOT_FOUND else "request"
    return problem_response(ProblemError(error.status_code, code, error.detail, headers=error.headers))


async def _bug(_request: Request, _error: Exception) -> Response:
    return problem_response(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "bug", "a bug; the service's log has it"))
