"""What the entities are rebuilt from: a compacted topic of one partition, written with what it is about.

- ``doc:KEY``: what a remembered document counts. ``sealed:ID:WINDOW``: what forgotten ones count of a name.
- ``decision:ID``: a decision that is carried out. ``latest``: the latest window, how long windows are, and the settings
  that entities were written by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from el4ner.canonical.decisions import EntityDecision
from el4ner.canonical.entity_book import BookChanges
from el4ner.canonical.entity_settings import EntitySettings
from el4ner.canonical.name_book import NamedDocument, SealedKey
from el4ner.canonical.name_counts import SealedCounts
from el4ner.canonical.names import entity_id
from el4ner.errors import El4nerError, MessageError
from el4ner.serialize import dumps
from workers.config import KafkaSettings
from workers.entities.entity_messages import decision_from_json, decision_to_json
from workers.kafka.partition_reader import committed_records
from workers.messages.envelope import Outgoing

__all__ = ["EntityState", "EntityStateError", "read_state", "state_records", "take_in", "writing_settings"]

_FORMAT: Final = 1
_DOCUMENT: Final = "doc:"
_SEALED: Final = "sealed:"
_DECISION: Final = "decision:"
_LATEST: Final = "latest"


class EntityStateError(El4nerError):
    """The entities' changelog holds something that this version, or these settings, cannot go on from."""

    code = "entity-state"


@dataclass(slots=True)
class EntityState:
    """What the changelog says. ``window_hours`` None: nothing yet. ``written_by``: settings that entities were
    written by."""

    latest_window: int | None = None
    window_hours: int | None = None
    written_by: Mapping[str, Any] | None = None
    documents: dict[str, NamedDocument] = field(default_factory=dict)
    sealed: dict[str, tuple[SealedKey, SealedCounts]] = field(default_factory=dict)
    decisions: dict[str, EntityDecision] = field(default_factory=dict)


def writing_settings(settings: EntitySettings) -> dict[str, Any]:
    """The settings that decide what is written of an entity, whatever has changed about it."""
    return {"short_forms": settings.short_forms, "max_aliases": settings.max_aliases}


def state_records(changes: BookChanges, name: str, settings: EntitySettings) -> list[Outgoing]:
    """What changes are as messages to the changelog of that name."""
    values: dict[str, Mapping[str, Any] | None] = {}
    for key, document in changes.names.documents.items():
        values[f"{_DOCUMENT}{key}"] = None if document is None else _document_to_json(document)
    for (kind, called, window), counts in changes.names.sealed.items():
        key = f"{_SEALED}{entity_id(kind, called)}:{window}"
        values[key] = None if counts is None else _sealed_to_json(kind, called, window, counts)
    for decision in changes.decisions:
        values[f"{_DECISION}{decision.id}"] = decision_to_json(decision)
    if changes.names.latest_window is not None:
        values[_LATEST] = {
            "v": _FORMAT,
            "window": changes.names.latest_window,
            "hours": settings.window_hours,
            "written_by": writing_settings(settings),
        }
    return [
        Outgoing(name, key.encode(), None if value is None else dumps(value), (), 0) for key, value in values.items()
    ]


async def read_state(settings: KafkaSettings, name: str) -> EntityState:
    """What the changelog says. Call it when nobody else can write to it any more.

    Raises:
        EntityStateError: a record cannot be read.
    """
    state = EntityState()
    async for record in committed_records(settings, name, 0):
        try:
            take_in(state, record.key, record.value)
        except (KeyError, TypeError, ValueError, AttributeError, MessageError) as error:
            raise EntityStateError(
                f"{name}@{record.offset}: the entities' changelog cannot be read: {error}"
            ) from error
    return state


def take_in(state: EntityState, key: bytes | None, value: bytes | None) -> None:
    """A record, in the order of the topic."""
    called = (key or b"").decode()
    data = None if value is None else orjson.loads(value)
    if called == _LATEST and data is not None:
        if data["v"] != _FORMAT:
            raise ValueError(f"version {data['v']!r}")
        state.latest_window, state.window_hours = int(data["window"]), int(data["hours"])
        state.written_by = data.get("written_by")
    elif called.startswith(_DOCUMENT):
        _keep(state.documents, called, None if data is None else _document_from_json(called, data))
    elif called.startswith(_SEALED):
        _keep(state.sealed, called, None if data is None else _sealed_from_json(data))
    elif called.startswith(_DECISION):
        _keep(state.decisions, called, None if data is None else decision_from_json(data))


def _keep(entries: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        entries.pop(key, None)
    else:
        entries[key] = value


def _document_to_json(document: NamedDocument) -> dict[str, Any]:
    return {"version": document.version, "time": document.time_ms, "names": document.names}


def _document_from_json(key: str, data: Mapping[str, Any]) -> NamedDocument:
    names = tuple((kind, name, surfaces) for kind, name, surfaces in data["names"])
    return NamedDocument(key.removeprefix(_DOCUMENT), int(data["version"]), int(data["time"]), names)


def _sealed_to_json(kind: str, name: str, window: int, counts: SealedCounts) -> dict[str, Any]:
    return {
        "type": kind,
        "name": name,
        "window": window,
        "documents": counts.documents,
        "first": counts.first_ms,
        "last": counts.last_ms,
        "surfaces": dict(counts.surfaces),
    }


def _sealed_from_json(data: Mapping[str, Any]) -> tuple[SealedKey, SealedCounts]:
    counts = SealedCounts(int(data["documents"]), int(data["first"]), int(data["last"]), dict(data["surfaces"]))
    return (data["type"], data["name"], int(data["window"])), counts
