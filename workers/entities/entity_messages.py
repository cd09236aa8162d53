"""Messages of ``entities``, ``entity-trends`` and ``entity-decisions``, as they are written and read. No Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from el4ner.canonical.decisions import EntityDecision
from el4ner.canonical.entity_views import EntityView, MergedName, WindowTrend
from el4ner.canonical.names import canonical_name
from el4ner.errors import MessageError
from el4ner.serialize import fingerprint
from workers.messages.envelope import Outgoing, decode, outgoing
from workers.messages.headers import Trace, utc_time
from workers.roles import ENTITIES
from workers.topics import Topic

__all__ = [
    "decision_from_json",
    "decision_message",
    "decision_to_json",
    "entity_message",
    "entity_to_json",
    "read_decision",
    "trend_message",
]

_EDITOR = "entity-editor"


def entity_to_json(view: EntityView | MergedName, window_ms: int) -> dict[str, Any]:
    """The value of a message of ``entities``."""
    if isinstance(view, MergedName):
        by = "decision" if view.decided else "short-form"
        return {"id": view.id, "type": view.type, "name": view.name, "merged_into": view.into, "merged_by": by}
    return {
        "id": view.id,
        "type": view.type,
        "name": view.name,
        "merged_into": None,
        "aliases": list(view.aliases),
        "names": [{"id": entity, "name": name} for entity, name in view.names],
        "first_seen": utc_time(view.first_ms),
        "last_seen": utc_time(view.last_ms),
        "mentions": sum(each.mentions for each in view.windows),
        "window_seconds": window_ms // 1000,
        "windows": [
            {"start": utc_time(each.window * window_ms), "mentions": each.mentions, "documents": each.documents}
            for each in view.windows
        ],
    }


def entity_message(
    entity: str, view: EntityView | MergedName | None, window_ms: int, *, now_ms: int, trace: Trace
) -> Outgoing:
    """What there is to say about an entity; None: nothing any more."""
    value = None if view is None else entity_to_json(view, window_ms)
    return _message(Topic.ENTITIES, entity, value, now_ms=now_ms, trace=trace)


def trend_message(
    window: int, kind: str, trend: WindowTrend | None, window_ms: int, *, now_ms: int, trace: Trace
) -> Outgoing:
    """The most frequent entities of a window and type; None: it has none."""
    start = utc_time(window * window_ms)
    value = None if trend is None else _trend_to_json(trend, start, window_ms)
    return _message(Topic.ENTITY_TRENDS, f"{kind}:{start}", value, now_ms=now_ms, trace=trace)


def _trend_to_json(trend: WindowTrend, start: str, window_ms: int) -> dict[str, Any]:
    return {
        "type": trend.type,
        "start": start,
        "window_seconds": window_ms // 1000,
        "entities": trend.entities,
        "top": [
            {
                "id": each.id,
                "name": each.name,
                "mentions": each.mentions,
                "documents": each.documents,
                "before": each.before,
            }
            for each in trend.top
        ],
    }


def decision_to_json(decision: EntityDecision) -> dict[str, Any]:
    """The value of a message of ``entity-decisions``."""
    return {
        "id": decision.id,
        "at": decision.at_ms,
        "action": decision.action,
        "type": decision.type,
        "name": decision.name,
        "into": decision.into,
        "by": decision.by,
    }


def decision_from_json(data: Mapping[str, Any]) -> EntityDecision:
    """The decision of a value that the schema allows.

    Raises:
        MessageError: ``decision``: it cannot be so.
    """
    for name in (data["name"], data["into"]):
        if name is not None and canonical_name(name) != name:
            raise MessageError(
                f"{name!r} is no canonical name: that would be {canonical_name(name)!r}", code="decision"
            )
    try:
        return EntityDecision(
            data["id"], data["at"], data["action"], data["type"], data["name"], data["into"], data["by"]
        )
    except ValueError as error:
        raise MessageError(str(error), code="decision") from error


def read_decision(key: bytes | None, value: bytes) -> EntityDecision:
    """The decision of a message.

    Raises:
        MessageError: ``encoding``, ``json``, ``schema``, ``decision``, or ``key`` (it is not the decision's id).
    """
    decision = decision_from_json(decode(Topic.ENTITY_DECISIONS, value))
    if key != decision.id.encode():
        raise MessageError(f"the key is not the decision's id, {decision.id}", code="key")
    return decision


def decision_message(decision: EntityDecision, *, now_ms: int, trace: Trace) -> Outgoing:
    """The message that says what somebody decided."""
    return outgoing(
        Topic.ENTITY_DECISIONS,
        decision_to_json(decision),
        key=decision.id,
        subject=decision.entity,
        event_id=decision.id,
        source=_EDITOR,
        now_ms=now_ms,
        trace=trace,
        partition=0,
    )


def _message(topic: Topic, key: str, value: Mapping[str, Any] | None, *, now_ms: int, trace: Trace) -> Outgoing:
    return outgoing(
        topic,
        value,
        key=key,
        subject=key,
        # The same said again has the same id.
        event_id=fingerprint(topic.value, key, value),
        source=ENTITIES,
        now_ms=now_ms,
        trace=trace,
    )
