"""Entities as the page shows them: every string with its controls escaped, lists bounded, ids to ask by."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from el4ner.canonical.decisions import EntityDecision, EntityDecisions
from el4ner.canonical.joins import NameJoins
from workers.entities.entity_topic import decided_joins, joined_names
from workers.ui.shown_documents import shown_string

__all__ = ["entity_ids_of", "shown_entity", "shown_row"]

_MOST_SPELLINGS: Final = 100
_MOST_NAMES: Final = 200
_MOST_DECISIONS: Final = 50
_ROW_SPELLINGS: Final = 4

Values = Mapping[str, Mapping[str, Any]]


def shown_row(value: Mapping[str, Any]) -> dict[str, Any]:
    """An entity in a list."""
    others = [each for each in value["aliases"] if each != value["name"]]
    return {
        "id": value["id"],
        "type": shown_string(value["type"]),
        "name": shown_string(value["name"]),
        "spellings": [shown_string(each) for each in others[:_ROW_SPELLINGS]],
        "more_spellings": max(0, len(others) - _ROW_SPELLINGS),
        "mentions": value["mentions"],
        "last_seen": _milliseconds(value["last_seen"]),
    }


def shown_entity(
    asked: str, whole: Mapping[str, Any], held: Values, decisions: EntityDecisions, *, decision: str = ""
) -> dict[str, Any]:
    """All that is known of an entity, ``whole``, for which the id ``asked`` stands: its own, or that of a name in it.

    ``is_waiting``: the worker has yet to carry out a decision that is about it. ``decision_state``: what became of the
    decision of the id ``decision``; None: it was not read yet.
    """
    names = joined_names(whole, decisions)
    history = _history(entity_ids_of(whole) | names.keys(), held, decisions)
    return {
        **shown_row(whole),
        "asked": None if asked == whole["id"] or asked not in names else shown_string(names[asked]),
        "spellings": [shown_string(each) for each in whole["aliases"][:_MOST_SPELLINGS]],
        "more_spellings": max(0, len(whole["aliases"]) - _MOST_SPELLINGS),
        "names": [
            {"id": entity, "name": shown_string(name), "why": _why(entity, decisions)}
            for entity, name in list(names.items())[:_MOST_NAMES]
        ],
        "more_names": max(0, len(names) - _MOST_NAMES),
        "first_seen": _milliseconds(whole["first_seen"]),
        "window_seconds": whole["window_seconds"],
        "windows": [[_milliseconds(each["start"]), each["mentions"], each["documents"]] for each in whole["windows"]],
        "decisions": history[:_MOST_DECISIONS],
        "more_decisions": max(0, len(history) - _MOST_DECISIONS),
        "is_waiting": any(each["state"] == "waiting" for each in history),
        "decision_state": _state_of_id(decision, held, decisions),
    }


def entity_ids_of(whole: Mapping[str, Any]) -> set[str]:
    """The ids of the names that documents have of an entity, its own among them."""
    return {whole["id"], *(each["id"] for each in whole["names"])}


def _why(entity: str, decisions: EntityDecisions) -> str:
    """Why a name is joined in another one: as ``merged_by`` has it."""
    decision = decisions.about(entity)
    return "short-form" if decision is None or decision.target is None else "decision"


def _history(names: set[str], held: Values, decisions: EntityDecisions) -> list[dict[str, Any]]:
    """What was decided about these names, and about those that were ever merged into them, the latest first."""
    once_joined = {each.entity for name in names for each in decisions.all_into(name)}
    about = [each for name in names | once_joined for each in decisions.all_about(name)]
    about.sort(key=lambda each: each.rank, reverse=True)
    joins = decided_joins(decisions)
    return [_shown_decision(each, _state(each, held, decisions, joins)) for each in about]


def _state_of_id(decision: str, held: Values, decisions: EntityDecisions) -> str | None:
    known = decisions.of_id(decision)
    return None if known is None else _state(known, held, decisions, decided_joins(decisions))


def _state(decision: EntityDecision, held: Values, decisions: EntityDecisions, joins: NameJoins) -> str:
    """``over`` (a later one counts), ``waiting`` (for the worker), or ``done``; so is one about a name that no document
    has any more."""
    if decisions.about(decision.entity) != decision:
        return "over"
    value, goal = held.get(decision.entity), joins.entity(decision.entity)
    if decision.target is not None and goal == decision.entity:
        return "over"  # later merges lead back to it: in a ring the oldest one does not hold
    if value is None:
        return "done"
    if goal == decision.entity:
        return "done" if value["merged_into"] is None else "waiting"
    # Where a name was merged into a short form, that may lead on.
    return "done" if _end(decision.entity, held) == _end(goal, held) else "waiting"


def _end(entity: str, held: Values) -> str:
    """The id of the entity that a name is; of one that is not held, its own."""
    value = held.get(entity)
    return entity if value is None or value["merged_into"] is None else str(value["merged_into"])


def _shown_decision(decision: EntityDecision, state: str) -> dict[str, Any]:
    return {
        "at": decision.at_ms,
        "by": shown_string(decision.by),
        "action": decision.action,
        "id": decision.entity,
        "name": shown_string(decision.name),
        "into": None if decision.into is None else shown_string(decision.into),
        "into_id": decision.target,
        "state": state,
    }


def _milliseconds(moment: str) -> int | None:
    """Since 1970; None: it is no moment."""
    try:
        return int(datetime.fromisoformat(moment).timestamp() * 1000)
    except (OverflowError, ValueError):
        return None
