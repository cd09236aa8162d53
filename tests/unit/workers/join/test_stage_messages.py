"""What the join reads of a stage's message: by its headers if they say enough, else by its value."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import MessageError
from el4ner.serialize import dumps, entities_to_json
from el4ner.types import DocumentEntities
from tests.support import strategies
from tests.support.answers import TIME, TRACE, deletions, journey
from workers.config import load_stream_settings
from workers.join.rules import Deletion, Open, ReceivedAnswer
from workers.join.stage_messages import join_rules, read_input
from workers.messages import json_schemas
from workers.messages.envelope import Origin, Record
from workers.topics import Topic

VERDICTS = Topic.VALIDATION_VERDICTS


def record(topic: Topic, value: bytes | None, *, key: bytes | None = b"d", headers: Any = ()) -> Record:
    return Record(topic, f"p.{topic.value}", 1, 9, 0, key, value, headers)


@pytest.mark.parametrize("fails", [None, "validate"])
def test_an_answer_is_known_by_its_headers_whatever_its_value_is(fails: str | None) -> None:
    message = journey("größe", 3, origin=Origin(41), fails=fails)["validate"]
    unread = Record(VERDICTS, message.source, 1, 9, 0, message.key, b"\xff not read", message.headers)
    part = read_input(unread)
    assert isinstance(part, ReceivedAnswer)
    assert (part.id, part.revision, part.stage, part.failed) == ("größe", 3, "validate", fails is not None)
    assert (part.value, part.origin) == (b"\xff not read", Origin(41, TIME))
    assert part.trace is not None
    assert part.trace.split("-")[1] == TRACE.split("-")[1]


@given(strategies.document_entities(), st.booleans())
def test_an_answer_without_such_headers_is_known_by_its_value(result: DocumentEntities, half: bool) -> None:
    value = dumps({"stage": "validate", "status": "ok", **entities_to_json(result)})
    headers = (("ce_subject", b"other"), ("el4ner-status", b"ok")) if half else ()
    part = read_input(record(VERDICTS, value, headers=headers))
    document = result.document
    assert part == ReceivedAnswer(document.id, document.revision, "validate", False, value, Origin(-1, -1, 0), None)


@pytest.mark.parametrize(
    "wrong",
    [("el4ner-revision", b"-1"), ("el4ner-revision", b"9" * 30), ("el4ner-status", b"done"), ("ce_subject", b"")],
)
def test_headers_that_make_no_sense_are_passed_over(wrong: tuple[str, bytes]) -> None:
    message = journey("own", 3)["validate"]
    part = read_input(record(VERDICTS, message.value, headers=(*message.headers, wrong)))
    assert isinstance(part, ReceivedAnswer)
    assert (part.id, part.revision, part.failed) == ("own", 3, False)


def test_a_value_that_is_no_answer_is_refused_if_no_header_says_whose_it_is() -> None:
    for value in (b"rubbish", b"{}", b"\xff"):
        with pytest.raises(MessageError):
            read_input(record(Topic.TYPED_ENTITIES, value))


def test_a_null_value_deletes_the_document_of_its_key() -> None:
    for message in deletions("größe", position=41).values():
        part = read_input(message)
        assert isinstance(part, Deletion)
        assert (part.id, part.origin) == ("größe", Origin(41, TIME))


@given(strategies.document_entities(), st.booleans())
def test_the_join_of_real_values_is_a_valid_document(result: DocumentEntities, by_deadline: bool) -> None:
    join = join_rules(load_stream_settings(environ={}))
    value = {"stage": "validate", "status": "ok", **entities_to_json(result)}
    part = read_input(record(VERDICTS, dumps(value)))
    assert isinstance(part, ReceivedAnswer)
    if by_deadline:
        outcome = join.expire(part.id, Open(part.revision, part.origin, 0, best=part))
    else:
        _, settled = join.apply(None, part, now=0)
        assert settled is not None
        outcome = settled
    tagged = outcome.tagged
    assert tagged is not None
    json_schemas.validate("tagged-documents", orjson.loads(dumps(tagged)))
    for entity in tagged["entities"]:
        assert tagged["text"][entity["start"] : entity["end"]] == entity["text"]
