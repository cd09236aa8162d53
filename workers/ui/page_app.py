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
GET, POST /api/lesson        a document's sentences; teach the pool one of them
GET  /api/pools, POST /api/try                  by `el4ner serve`
GET  /livez
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from typing_extensions import override

from el4ner.errors import El4nerError
from el4ner.serialize import dumps
from workers.config import StreamSettings
from workers.dead_letters.letters import Coordinates, DlqError, parse_coordinates
from workers.http.problems import CLIENT_GONE, ProblemError, problem_response
from workers.tail import TailError, tagged_at
from workers.teaching.topic_examples import TeachingError
from workers.ui import letter_views
from workers.ui.event_stream import EventStream
from workers.ui.followed_topic import FollowedTopic
from workers.ui.group_lag import LagKeeper
from workers.ui.lessons import Lessons
from workers.ui.live_feed import LiveFeed
from workers.ui.live_filter import read_filter
from workers.ui.page_front import LOGIN_PATH, STATIC_PREFIX, PageFront, visitor_of
from workers.ui.shown_documents import shown_document, shown_string
from workers.ui.trend_counts import WINDOWS
from workers.ui.tried_texts import TriedTexts
from workers.ui.visitors import COOKIE, VisitorRole, Visitors
from workers.ui.worker_metrics import WorkerMetrics

__all__ = ["PageState", "page_app"]

T = TypeVar("T")

_STATIC: Final = Path(__file__).parent / "static"
_TICK_SECONDS: Final = 0.5
_STATUS_SECONDS: Final = 1.0
_MOST_BODY: Final = 512 * 1024
_MOST_REPLAYED: Final = 500
_BLOCKING_CALLS: Final = 4
"""Kafka clients of ours that may be open at the same time for what people look up."""
_UNPROCESSABLE: Final = HTTPStatus.UNPROCESSABLE_ENTITY


@dataclass
class PageState:
    """What requests are answered by."""

    settings: StreamSettings
    visitors: Visitors
    feed: LiveFeed
    followed: FollowedTopic
    tried: TriedTexts
    metrics: WorkerMetrics
    lags: LagKeeper
    lessons: Lessons
    clock: Callable[[], float] = time.time
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    blocking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_BLOCKING_CALLS))
    replaying: asyncio.Lock = field(default_factory=asyncio.Lock)


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
            api("/api/trends", _trends),
            api("/api/mentions", _mentions),
            api("/api/letters", _letters),
            api("/api/letters/{letter}", _letter),
            api("/api/letters/plan", _plan, "POST"),
            api("/api/letters/replay", _replay, "POST"),
            api("/api/health", _health),
            api("/api/lesson", _lesson),
            api("/api/lesson", _teach, "POST"),
            api("/api/pools", _pools),
            api("/api/try", _try, "POST"),
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
    return _json({"status": "ok"})


# --- who asks ---------------------------------------------------------------------------------------------------------


async def _session(request: Request, state: PageState) -> Response:
    visitor = visitor_of(request.state)
    return _json(
        {
            "name": shown_string(visitor.name),
            "role": visitor.role.value,
            "page_token": visitor.forgery_token,
            "may_leave": state.visitors.takes_tokens,
            "can_try": state.tried.is_possible,
            "live_documents": state.settings.ui.live_documents,
        }
    )


async def _login(request: Request, state: PageState) -> Response:
    body = await _body(request)
    token = body.get("token")
    session = state.visitors.begin(token) if isinstance(token, str) else None
    if session is None:
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", "this is no token of this page")
    response = _json({})
    secure = request.headers.get("origin", "").startswith("https://")
    response.set_cookie(COOKIE, session, httponly=True, samesite="strict", secure=secure, path="/")
    return response


async def _logout(request: Request, state: PageState) -> Response:
    state.visitors.end(request.headers)
    response = _json({})
    response.delete_cookie(COOKIE, path="/")
    return response


# --- live -------------------------------------------------------------------------------------------------------------


async def _events(request: Request, state: PageState) -> Any:
    visitor_of(request.state)
    query = request.query_params
    wanted = None
    if query.get("documents") == "yes":
        wanted = read_filter(query, {name: query.getlist(name) for name in ("type", "pool", "status")})

    async def events() -> AsyncGenerator[tuple[str, Any], None]:
        viewer = None if wanted is None else state.feed.view(wanted)
        told_at = -_STATUS_SECONDS
        try:
            while not state.stopping.is_set():
                if (now := time.monotonic()) - told_at >= _STATUS_SECONDS:
                    told_at = now
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
        "types": [shown_string(kind) for kind in feed.types],
        "pools": [shown_string(pool) for pool in feed.pools],
    }


# --- trends -----------------------------------------------------------------------------------------------------------


async def _trends(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    window = request.query_params.get("window", "5m")
    if window not in WINDOWS:
        raise ProblemError(_UNPROCESSABLE, "window", f"window: one of {', '.join(WINDOWS)}")
    report = state.feed.trends.report(window, state.clock(), kind=request.query_params.get("type") or None)
    return _json(asdict(report))


async def _mentions(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    mention = (request.query_params.get("type", ""), request.query_params.get("name", ""))
    places = state.feed.trends.places(mention)
    kept = {place: state.feed.find(place) for place in places}
    missing = [place for place, record in kept.items() if record is None]
    found = await _blocking(state, lambda: list(tagged_at(state.settings, missing))) if missing else []
    documents = [
        shown_document(each.value, place=f"{each.partition}-{each.offset}", timestamp_ms=each.timestamp_ms)
        for each in found
    ]
    documents += [shown for record in kept.values() if record is not None and (shown := record.shown()) is not None]
    return _json({"documents": sorted(documents, key=lambda each: -(each["timestamp"] or 0))})


# --- dead letters -----------------------------------------------------------------------------------------------------


async def _letters(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    query = request.query_params
    hours = query.get("hours", "")
    if hours and not (hours.isdecimal() and 0 < int(hours) <= 10_000):
        raise ProblemError(_UNPROCESSABLE, "hours", "hours: a whole number, from 1")
    since = int((state.clock() - 3600 * int(hours)) * 1000) if hours else None
    listed = partial(
        letter_views.letter_list,
        state.settings,
        since_ms=since,
        codes=frozenset(query.getlist("code")),
        stages=frozenset(query.getlist("stage")),
    )
    return _json(await _blocking(state, listed))


async def _letter(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    coordinates = _coordinates(request.path_params["letter"])
    return _json(await _blocking(state, partial(letter_views.shown_letter, state.settings, coordinates)))


async def _plan(request: Request, state: PageState) -> Response:
    visitor_of(request.state, VisitorRole.TEACHER)
    named = _named(await _body(request))
    return _json(await _blocking(state, partial(letter_views.replay_plan, state.settings, named)))


async def _replay(request: Request, state: PageState) -> Response:
    visitor_of(request.state, VisitorRole.TEACHER)
    named = _named(await _body(request))
    async with state.replaying:  # two people who press at once send a letter once each, and see it
        sent = await _blocking(state, partial(letter_views.replay_letters, state.settings, named))
    return _json({"sent": sent})


def _named(body: Mapping[str, Any]) -> list[Coordinates]:
    names = body.get("letters")
    if not isinstance(names, list) or not 0 < len(names) <= _MOST_REPLAYED:
        raise ProblemError(_UNPROCESSABLE, "letters", f"letters: 1 to {_MOST_REPLAYED} of PARTITION-OFFSET")
    return [_coordinates(name) for name in dict.fromkeys(map(str, names))]


def _coordinates(name: str) -> Coordinates:
    try:
        return parse_coordinates(name)
    except ValueError as error:
        raise ProblemError(_UNPROCESSABLE, "letters", str(error)) from error


# --- health -----------------------------------------------------------------------------------------------------------


async def _health(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    lags, problem = await state.lags.latest()
    return _json({**state.metrics.report(), "lags": lags, "lag_problem": problem})


# --- teaching ---------------------------------------------------------------------------------------------------------


async def _lesson(request: Request, state: PageState) -> Response:
    visitor_of(request.state, VisitorRole.TEACHER)
    value = await _value_at(state, _coordinates(request.query_params.get("place", "")))
    return _json(await _blocking(state, partial(state.lessons.opened, value)))


async def _teach(request: Request, state: PageState) -> Response:
    visitor = visitor_of(request.state, VisitorRole.TEACHER)
    body = await _body(request)
    place = _coordinates(str(body.get("place")))
    value = await _value_at(state, place)
    return _json(await _blocking(state, partial(state.lessons.teach, value, place, body, visitor.name)))


async def _value_at(state: PageState, place: Coordinates) -> Mapping[str, Any]:
    """The tagged document that lies there.

    Raises:
        ProblemError: 404: it is not there any more.
    """
    if (record := state.feed.find(place)) is not None and (value := record.decoded()) is not None:
        return value
    for found in await _blocking(state, lambda: list(tagged_at(state.settings, [place]))):
        return found.value
    raise ProblemError(HTTPStatus.NOT_FOUND, "no-document", "the document is not there any more")


# --- texts that are tried ---------------------------------------------------------------------------------------------


async def _pools(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    return _json(await state.tried.pools())


async def _try(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    body = await _body(request)
    text, pool = body.get("text"), body.get("pool")
    if not isinstance(text, str) or not isinstance(pool, str | None):
        raise ProblemError(_UNPROCESSABLE, "text", "text and pool have to be text")
    return _json(await state.tried.tag(text, pool))


# --- what they share --------------------------------------------------------------------------------------------------


async def _blocking(state: PageState, call: Callable[[], T]) -> T:
    """What asks Kafka by a client of its own, on a thread.

    Raises:
        ProblemError: 502: it says what is wrong.
    """
    async with state.blocking:
        try:
            return await asyncio.to_thread(call)
        except (DlqError, TailError, TeachingError) as error:
            raise ProblemError(HTTPStatus.BAD_GATEWAY, error.code, str(error)) from error


async def _body(request: Request) -> dict[str, Any]:
    """A JSON object."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", "expected Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_BODY:
                    detail = f"the body is larger than {_MOST_BODY >> 10} kB"
                    raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request-too-large", detail)
        value = orjson.loads(body)
    except TimeoutError:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT, "slow-body", "the body did not come in time", headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ProblemError(CLIENT_GONE, "client-gone", "the client closed the connection") from None
    except orjson.JSONDecodeError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "json", f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "json", "the body is no JSON object")
    return value


_BODY_SECONDS: Final = 10.0


def _json(data: Any, status: int = 200) -> Response:
    return Response(dumps(data), status, media_type="application/json")


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
