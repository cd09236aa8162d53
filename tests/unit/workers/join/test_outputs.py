"""What comes out of the join: tagged documents, their mentions, deletions."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given

from el4ner.serialize import tagged_to_json
from el4ner.types import TaggedDocument
from tests.support import strategies
from tests.support.answers import TIME, TRACE, random
from workers.join import outputs
from workers.join.outputs import mentions, normalise, tagged_document
from workers.messages import json_schemas
from workers.messages.entity_ids import entity_ids, with_entity_ids
from workers.messages.envelope import Origin
from workers.messages.headers import Trace, find, parse_traceparent
from workers.topics import Topic

SPAN = Trace(TRACE.split("-")[1], "0" * 15 + "1")


@given(strategies.tagged_documents())
def test_every_mention_is_valid_and_named_by_what_it_is(tagged: TaggedDocument) -> None:
    value = {
        **tagged_to_json(tagged),
        "revision": 1,
        "status": "complete",
        "manifests": {},
        "missing": [],
        "error": None,
    }
    ids = entity_ids(value)
    messages = mentions(value, ids, "e", trace=SPAN, now_ms=0, random=random)
    assert len(messages) == len(tagged.entities)
    for message, entity in zip(messages, tagged.entities, strict=True):
        mention = orjson.loads(message.value or b"")
        json_schemas.validate("entity-mentions", mention)
        assert message.key == f"{entity.type}:{normalise(entity.text)}".encode()
        assert message.partition is None
        assert mention["entity_id"] == ids[messages.index(message)]
        trace = parse_traceparent(message.headers)
        assert trace is not None
        assert trace.trace_id == SPAN.trace_id
        assert trace.span_id != SPAN.span_id
    again = mentions(value, ids, "e", trace=Trace("1" * 32, "2" * 16), now_ms=5, random=random)
    assert [find(message.headers, "ce_id") for message in messages] == [
        find(message.headers, "ce_id") for message in again
    ]
    for shown in (value, with_entity_ids(value, ids)):
        whole = tagged_document(shown, "e", Origin(41, TIME), partition=3, trace=SPAN, now_ms=0)
        json_schemas.validate("tagged-documents", orjson.loads(whole.value or b""))
    assert (whole.key, whole.partition) == (tagged.id.encode(), 3)
    assert find(whole.headers, "traceparent") == SPAN.parent.encode()
    assert find(whole.headers, "el4ner-position") == b"41"
    assert find(whole.headers, "ce_id") == b"e"


def test_a_deletion_is_a_null_value_under_the_documents_id_in_its_partition() -> None:
    def made(position: int) -> Any:
        return outputs.deletion("größe", Origin(position), partition=3, trace=SPAN, now_ms=0)

    message = made(41)
    assert (message.topic, message.key, message.value, message.partition) == (
        Topic.TAGGED_DOCUMENTS,
        "größe".encode(),
        None,
        3,
    )
    assert find(message.headers, "ce_id") == find(made(41).headers, "ce_id") != find(made(42).headers, "ce_id")


def test_surfaces_are_normalised_for_comparison() -> None:
    assert normalise("  Ｂerlin\n STRASSE ") == normalise("berlin straße") == "berlin strasse"
