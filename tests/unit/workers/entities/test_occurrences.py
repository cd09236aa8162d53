"""What a tagged document leads to on entity-occurrences."""

from __future__ import annotations

import orjson
import pytest

from workers.entities.occurrences import OccurrenceMessages, OccurrenceTeller, named_document
from workers.messages import json_schemas
from workers.messages.envelope import Record
from workers.topics import Topic

NOW = 1_764_277_200_000


def record(value: bytes | None, *, key: bytes | None = b"d-1", came_in: int | None = NOW - 5_000) -> Record:
    headers = () if came_in is None else (("el4ner-timestamp", str(came_in).encode()),)
    return Record(Topic.TAGGED_DOCUMENTS, "tagged-documents", 3, 41, NOW - 1_000, key, value, headers)


def tagged(*surfaces: str, status: str = "complete") -> bytes:
    entities: list[dict[str, object]] = [
        {
            "start": 0,
            "end": len(surface),
            "text": surface,
            "type": "person",
            "confidence": 0.9,
            "proposed_by": ["chunks"],
            "votes": {},
            "verdict": None,
        }
        for surface in surfaces
    ]
    value = {"id": "d-1", "revision": 0, "text": "…", "pool": "news", "status": status, "entities": entities}
    return orjson.dumps({**value, "manifests": {}, "missing": [], "error": None})


def tell(of: Record) -> OccurrenceMessages:
    return OccurrenceTeller(clock_ms=lambda: NOW, random=lambda size: b"1" * size).tell(of)


def occurrence(of: Record) -> dict[str, object]:
    told = tell(of)
    message = told.messages[-1]
    assert (message.topic, message.key, message.partition) == (Topic.ENTITY_OCCURRENCES, b"d-1", 0)
    assert message.value is not None
    value: dict[str, object] = orjson.loads(message.value)
    json_schemas.validate("entity-occurrences", value)
    return value


def test_a_document_tells_its_names_with_their_spellings_when_it_came_in_and_which_version_it_is() -> None:
    value = occurrence(record(tagged("Ada Lovelace", "Lovelace", "Lovelace", "Charles Babbage")))
    assert value["names"] == [
        {"type": "person", "name": "ada lovelace", "surfaces": {"Ada Lovelace": 1, "Lovelace": 2}},
        {"type": "person", "name": "charles babbage", "surfaces": {"Charles Babbage": 1}},
    ]
    assert (value["time_ms"], value["version"]) == (NOW - 5_000, [NOW - 1_000, 41])
    read = named_document(value, 7)
    assert (read.version, read.time_ms, len(read.names)) == (7, NOW - 5_000, 2)


def test_a_partial_document_counts_and_a_deleted_one_has_no_names() -> None:
    assert occurrence(record(tagged("Ada Lovelace", status="partial")))["names"] != []
    assert occurrence(record(None))["names"] == []


def test_the_time_is_that_of_the_message_if_it_does_not_say_more_and_never_in_the_future() -> None:
    assert occurrence(record(tagged(), came_in=None))["time_ms"] == NOW - 1_000
    assert occurrence(record(tagged(), came_in=NOW + 10**9))["time_ms"] == NOW


@pytest.mark.parametrize(
    ("value", "code"), [(b"no json", "json"), (b"{}", "schema"), (tagged().replace(b"d-1", b"d-2"), "schema")]
)
def test_what_cannot_be_read_is_a_dead_letter_and_counts_no_more(value: bytes, code: str) -> None:
    told = tell(record(value))
    assert told.error is not None
    assert told.error.code == code
    assert [message.topic for message in told.messages] == [Topic.DEAD_LETTERS, Topic.ENTITY_OCCURRENCES]
    assert occurrence(record(value))["names"] == []


@pytest.mark.parametrize("key", [None, b"\xff"])
def test_a_message_without_a_document_is_a_dead_letter_alone(key: bytes | None) -> None:
    told = tell(record(tagged("Ada Lovelace"), key=key))
    assert [message.topic for message in told.messages] == [Topic.DEAD_LETTERS]


def test_the_same_message_leads_to_the_same_id() -> None:
    first, second = (dict(tell(record(tagged("Ada Lovelace"))).messages[0].headers) for _ in range(2))
    assert first["ce_id"] == second["ce_id"]
