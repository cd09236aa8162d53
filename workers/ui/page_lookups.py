"""What people look up on the page, and what they have it do: trends, dead letters, health, teaching, texts to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from workers.dead_letters.letters import Coordinates, parse_coordinates
from workers.http.problems import ProblemError
from workers.tail import tagged_at
from workers.ui import letter_views
from workers.ui.page_front import visitor_of
from workers.ui.page_state import PageState, json_body, json_response, on_a_thread
from workers.ui.shown_documents import shown_document, shown_sentence, shown_string
from workers.ui.trend_counts import WINDOWS
from workers.ui.visitors import VisitorRole

__all__ = ["documents_at", "lookup_routes"]

_MOST_REPLAYED: Final = 500
_UNPROCESSABLE: Final = HTTPStatus.UNPROCESSABLE_ENTITY


def lookup_routes(state: PageState) -> list[Route]:
    """Their paths."""

    def api(path: str, call: Any, method: str = "GET") -> Route:
        return Route(path, partial(call, state=state), methods=[method])

    return [
        api("/api/trends", _trends),
        api("/api/mentions", _mentions),
        api("/api/letters", _letters),
        api("/api/letters/{letter}", _letter),
        api("/api/letters/plan", _plan, "POST"),
        api("/api/letters/replay", _replay, "POST"),
        api("/api/health", _health),
        api("/api/lesson", _lesson),
        api("/api/lesson", _teach, "POST"),
        api("/api/queue", _queue),
        api("/api/queue/dismiss", _dismiss, "POST"),
        api("/api/pools", _pools),
        api("/api/try", _try, "POST"),
    ]


# --- trends -----------------------------------------------------------------------------------------------------------


async def _trends(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    window = request.query_params.get("window", "5m")
    if window not in WINDOWS:
        raise ProblemError(_UNPROCESSABLE, "window", f"window: one of {', '.join(WINDOWS)}")
    report = state.feed.trends.report(window, state.clock(), kind=request.query_params.get("type") or None)
    return json_response(asdict(report))


async def _mentions(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    mention = (request.query_params.get("type", ""), request.query_params.get("name", ""))
    return json_response({"documents": await documents_at(state, state.feed.trends.places(mention))})


async def documents_at(state: PageState, places: Sequence[Coordinates]) -> list[dict[str, Any]]:
    """The documents that lie there, as the page shows them, latest first, without those that are not there any more."""
    kept = {place: state.feed.find(place) for place in places}
    missing = [place for place, record in kept.items() if record is None]
    found = await on_a_thread(state, lambda: list(tagged_at(state.settings, missing))) if missing else []
    documents = [
        shown_document(each.value, place=f"{each.partition}-{each.offset}", timestamp_ms=each.timestamp_ms)
        for each in found
        if not state.feed.is_deleted(each.value["id"], (each.partition, each.offset))
    ]
    documents += [shown for record in kept.values() if record is not None and (shown := record.shown()) is not None]
    return sorted(documents, key=lambda each: -(each["timestamp"] or 0))


# --- dead letters -----------------------------------------------------------------------------------------------------


async def _letters(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    query = request.query_params
    hours = query.get("hours", "")
    if hours and not (hours.isdecimal() and len(hours) <= 5 and 0 < int(hours) <= 10_000):
        raise ProblemError(_UNPROCESSABLE, "hours", "hours: a whole number, from 1")
    since = int((state.clock() - 3600 * int(hours)) * 1000) if hours else None
    listed = partial(
        letter_views.letter_list,
        state.settings,
        since_ms=since,
        codes=frozenset(query.getlist("code")),
        stages=frozenset(query.getlist("stage")),
    )
    return json_response(await on_a_thread(state, listed))


async def _letter(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    coordinates = _coordinates(request.path_params["letter"])
    return json_response(await on_a_thread(state, partial(letter_views.shown_letter, state.settings, coordinates)))


async def _plan(request: Request, state: PageState) -> Response:
    visitor_of(request.state, VisitorRole.TEACHER)
    named = _named(await json_body(request))
    return json_response(await on_a_thread(state, partial(letter_views.replay_plan, state.settings, named)))


async def _replay(request: Request, state: PageState) -> Response:
    visitor_of(request.state, VisitorRole.TEACHER)
    named = _named(await json_body(request))
    async with state.replaying:  # two people who press at once send a letter once each, and see it
        sent = await on_a_thread(state, partial(letter_views.replay_letters, state.settings, named))
    return json_response({"sent": sent})


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
    return json_response({**state.metrics.report(), "lags": lags, "lag_problem": problem})


# --- teaching ---------------------------------------------------------------------------------------------------------


async def _lesson(request: Request, state: PageState) -> Response:
    visitor_of(request.state, VisitorRole.TEACHER)
    value = await _value_at(state, _coordinates(request.query_params.get("place", "")))
    return json_response(await on_a_thread(state, partial(state.lessons.opened, value)))


async def _teach(request: Request, state: PageState) -> Response:
    visitor = visitor_of(request.state, VisitorRole.TEACHER)
    body = await json_body(request)
    place = _coordinates(str(body.get("place")))
    value = await _value_at(state, place)
    return json_response(await on_a_thread(state, partial(state.lessons.teach, value, place, body, visitor.name)))


async def _value_at(state: PageState, place: Coordinates) -> Mapping[str, Any]:
    """The tagged document that lies there.

    Raises:
        ProblemError: 404: it is not there any more.
    """
    if (record := state.feed.find(place)) is not None and (value := record.decoded()) is not None:
        return value
    for found in await on_a_thread(state, lambda: list(tagged_at(state.settings, [place]))):
        if not state.feed.is_deleted(found.value["id"], place):
            return found.value
    state.reviews.forget_place(place)
    raise ProblemError(HTTPStatus.NOT_FOUND, "no-document", "the document is not there any more")


async def _queue(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    pools, wanted = state.reviews.pools, request.query_params.get("pool")
    if wanted and wanted not in pools:
        raise ProblemError(_UNPROCESSABLE, "pool", f"pool: one of {', '.join(pools) or 'none, as yet'}")
    lists = {name: state.reviews.listed(name, state.clock()) for name in ([wanted] if wanted else pools)}
    # Nobody said which: the first one that has something to look at.
    pool = next((name for name, each in lists.items() if each.items), next(iter(lists), None))
    answer: dict[str, Any] = {"pools": [shown_string(name) for name in pools], "problem": state.reviews.problem}
    if pool is None:
        return json_response({**answer, "pool": None, "sentences": [], "waiting": 0, "documents": 0, "valued": 0})
    listed = lists[pool]
    sentences = [
        shown_sentence(
            item.sentence, pool=pool, place=f"{item.place[0]}-{item.place[1]}", timestamp_ms=item.timestamp_ms
        )
        for item in listed.items
    ]
    counts = {"waiting": listed.waiting, "documents": listed.documents, "valued": listed.valued}
    return json_response({**answer, "pool": shown_string(pool), "sentences": sentences, **counts})


async def _dismiss(request: Request, state: PageState) -> Response:
    visitor_of(request.state, VisitorRole.TEACHER)
    body = await json_body(request)
    place, start = _coordinates(str(body.get("place"))), body.get("start")
    if not isinstance(start, int):
        raise ProblemError(_UNPROCESSABLE, "start", "start: where the sentence begins in its document")
    return json_response({"dismissed": state.reviews.dismiss(str(body.get("pool")), place, start)})


# --- texts that are tried ---------------------------------------------------------------------------------------------


async def _pools(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    return json_response(await state.tried.pools())


async def _try(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    body = await json_body(request)
    text, pool = body.get("text"), body.get("pool")
    if not isinstance(text, str) or not isinstance(pool, str | None):
        raise ProblemError(_UNPROCESSABLE, "text", "text and pool have to be text")
    return json_response(await state.tried.tag(text, pool))
