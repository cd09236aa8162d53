"""What people look up of entities on the page, and what they decide.

GET  /api/entities                    a page of the list: like, type, order (mentions, last-seen), but, start
GET  /api/entities/ID                 one of them; of a name that is another entity, that one; decision: the
                                      id of a decision, of which the answer says what became of it
GET  /api/entities/ID/documents       the latest documents that mention it, of those that came since the page started
POST /api/entities/merge              {kept, other}: ids of two entities, which are one from now on
POST /api/entities/split              {entity, name}: ids of an entity, and of a name that is no part of it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from el4ner.canonical.decisions import EntityDecision, EntityDecisions
from workers.entities.entity_topic import EntitiesError, KnownEntities
from workers.http.problems import ProblemError
from workers.ui.held_entities import EntityOrder, EntityWish, HeldEntities
from workers.ui.live_feed import mention_of
from workers.ui.page_front import visitor_of
from workers.ui.page_lookups import documents_at
from workers.ui.page_state import PageState, json_body, json_response, on_a_thread
from workers.ui.shown_documents import shown_string
from workers.ui.shown_entities import entity_ids_of, shown_entity, shown_row
from workers.ui.visitors import VisitorRole

__all__ = ["entity_routes"]

_UNPROCESSABLE: Final = HTTPStatus.UNPROCESSABLE_ENTITY
_MOST_CHARS: Final = 200
_LAST_START: Final = 10_000
_MOST_TYPES: Final = 100
_MOST_DOCUMENTS: Final = 20
_ORDERS: Final[Mapping[str, EntityOrder]] = {"mentions": "mentions", "last-seen": "last-seen"}


def entity_routes(state: PageState) -> list[Route]:
    """Their paths."""

    def api(path: str, call: Any, method: str = "GET") -> Route:
        return Route(path, partial(call, state=state), methods=[method])

    return [
        api("/api/entities", _entities),
        api("/api/entities/merge", _merge, "POST"),
        api("/api/entities/split", _split, "POST"),
        api("/api/entities/{entity}", _entity),
        api("/api/entities/{entity}/documents", _documents),
    ]


async def _entities(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    _check_enabled(state)
    wish = _wish(request.query_params)

    def listed(held: HeldEntities, _: EntityDecisions) -> dict[str, Any]:
        page = held.listed(wish)
        return {
            "entities": [shown_row(value) for value in page.values],
            "matched": page.matched,
            "start": wish.start,
            "most": wish.most,
            "last_start": _LAST_START,
            "types": held.types[:_MOST_TYPES],
            "all": held.entities,
            "has_forgotten": held.has_forgotten,
            "unreadable": held.unreadable,
        }

    return await _looked(state, listed)


async def _entity(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    _check_enabled(state)
    asked: str = request.path_params["entity"]
    decision = request.query_params.get("decision", "")

    def shown(held: HeldEntities, decisions: EntityDecisions) -> dict[str, Any]:
        return shown_entity(asked, _found(held, asked), held, decisions, decision=decision)

    return await _looked(state, shown)


async def _looked(state: PageState, call: Callable[[HeldEntities, EntityDecisions], dict[str, Any]]) -> Response:
    """What ``call`` makes of what is held, and whether all is."""
    answer = await asyncio.to_thread(state.entities.look, call)
    return json_response({**answer, "is_read": state.entities.is_read, "problem": state.entities.problem})


async def _documents(request: Request, state: PageState) -> Response:
    visitor_of(request.state)
    _check_enabled(state)
    asked: str = request.path_params["entity"]
    whole = await asyncio.to_thread(state.entities.look, lambda held, _: _found(held, asked))
    mentions = {mention_of({"type": whole["type"], "text": alias}) for alias in whole["aliases"]}
    places = sorted(
        {place for mention in mentions for place in state.feed.trends.places(mention)}, key=lambda at: -at[1]
    )
    ids, kind = entity_ids_of(whole), shown_string(whole["type"])
    spellings = {shown_string(alias) for alias in whole["aliases"]}

    def is_it(entity: Mapping[str, Any]) -> bool:
        """By its id where it has one: another entity may be spelt alike."""
        if entity["entity_id"] is not None:
            return entity["entity_id"] in ids
        return bool(entity["type"] == kind and entity["text"] in spellings)

    documents: dict[str, dict[str, Any]] = {}
    for document in await documents_at(state, places[:_MOST_DOCUMENTS]):
        wanted = [number for number, entity in enumerate(document["entities"]) if is_it(entity)]
        if wanted:
            # The latest comes first: what it was before is nobody's concern.
            documents.setdefault(document["id"], {**document, "wanted": wanted})
    return json_response({"documents": list(documents.values())})


async def _merge(request: Request, state: PageState) -> Response:
    visitor = visitor_of(request.state, VisitorRole.TEACHER)
    _check_enabled(state)
    kept, other = _texts(await json_body(request), "kept", "other")
    return await _decided(state, partial(state.entities.merge, kept, other, visitor.name))


async def _split(request: Request, state: PageState) -> Response:
    visitor = visitor_of(request.state, VisitorRole.TEACHER)
    _check_enabled(state)
    entity, name = _texts(await json_body(request), "entity", "name")
    return await _decided(state, partial(state.entities.split, entity, name, visitor.name))


async def _decided(state: PageState, decide: partial[EntityDecision]) -> Response:
    async with state.deciding:  # one waits for the one before: no more than one thread that others' look-ups need
        decision = await on_a_thread(state, decide)
    return json_response({"decision": decision.id, "id": decision.entity, "into_id": decision.target})


def _check_enabled(state: PageState) -> None:
    if not state.entities.is_enabled:
        detail = "the page follows no entities: set enabled under [entities], and start `el4ner worker entities`"
        raise ProblemError(HTTPStatus.NOT_FOUND, "no-entities", detail)


def _found(held: HeldEntities, asked: str) -> Mapping[str, Any]:
    try:
        return KnownEntities(held).entity(asked)
    except EntitiesError as error:
        detail = "no document has this entity any more, or the page has not read of it yet"
        raise ProblemError(HTTPStatus.NOT_FOUND, "no-entity", detail) from error


def _wish(query: Mapping[str, str]) -> EntityWish:
    """
    Raises:
        ProblemError: 422: names the parameter.
    """
    like, start, order = query.get("like", ""), query.get("start", "0"), query.get("order", "mentions")
    if len(like) > _MOST_CHARS:
        raise ProblemError(_UNPROCESSABLE, "like", f"like: at most {_MOST_CHARS} characters")
    if order not in _ORDERS:
        raise ProblemError(_UNPROCESSABLE, "order", f"order: one of {', '.join(_ORDERS)}")
    if not (start.isascii() and start.isdecimal() and len(start) < 9 and int(start) <= _LAST_START):
        raise ProblemError(_UNPROCESSABLE, "start", f"start: a whole number up to {_LAST_START}; else search")
    return EntityWish(like.strip(), query.get("type", ""), _ORDERS[order], query.get("but", ""), int(start))


def _texts(body: Mapping[str, Any], *names: str) -> list[str]:
    values = [body.get(name) for name in names]
    if not all(isinstance(value, str) and 0 < len(value) <= _MOST_CHARS for value in values):
        raise ProblemError(_UNPROCESSABLE, "entities", f"{' and '.join(names)}: ids of entities, as the list has them")
    return [str(value) for value in values]
